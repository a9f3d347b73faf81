"""Loudness and true peak against the values of ITU-R BS.1770-5 and EBU Tech 3341."""

import wave

import numpy as np
import pytest

from gapt_jax.live.loudness import LOUDNESS, PEAK, k_weighting, level, loudness, true_peak

RATES = [44100, 48000]


def sine(decibels, seconds, rate=48000, hertz=997, channels=2):
    tone = 10 ** (decibels / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile(tone[:, None], channels)


def test_the_filters_are_those_of_the_tables():
    shelf, high_pass = k_weighting(48000)
    assert shelf[:3] == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-8)
    assert shelf[3:] == pytest.approx([1, -1.69065929318241, 0.73248077421585], abs=1e-8)
    assert high_pass == pytest.approx([1, -2, 1, 1, -1.99004745483398, 0.99007225036621], abs=1e-8)


@pytest.mark.parametrize("rate", RATES)
def test_tones_have_the_loudness_that_is_written(rate):
    assert loudness(sine(0, 3, rate, channels=1), rate) == pytest.approx(-3.01, abs=0.02)  # BS.1770-5, annex 1
    assert loudness(sine(-23, 5, rate, 1000), rate) == pytest.approx(-23, abs=0.1)  # Tech 3341, case 1
    assert loudness(sine(-33, 5, rate, 1000), rate) == pytest.approx(-33, abs=0.1)  # case 2
    integers = np.rint(sine(-23, 5, rate) * 32768).astype(np.int16)
    assert loudness(integers, rate) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize(
    "parts",
    [
        [(-36, 10), (-23, 60), (-36, 10)],  # case 3
        [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)],  # case 4
        [(-26, 20), (-20, 20.1), (-26, 20)],  # case 5
    ],
)
def test_soft_parts_are_gated(parts):
    sound = np.concatenate([sine(decibels, seconds, hertz=1000) for decibels, seconds in parts])
    assert loudness(sound, 48000) == pytest.approx(-23, abs=0.1)


def test_silence_and_moments_have_none():
    assert loudness(np.zeros((48000, 2), np.int16), 48000) == -np.inf
    assert loudness(sine(-10, 0.3), 48000) == -np.inf and loudness(np.zeros((0, 2)), 48000) == -np.inf
    assert loudness(sine(-75, 3), 48000) == -np.inf and loudness(sine(-65, 3), 48000) == pytest.approx(-65, abs=0.1)
    assert true_peak(np.zeros((480, 2)), 48000) == -np.inf


@pytest.mark.parametrize(("turn", "sample"), [(0, 0.5), (np.pi / 4, 0.5 / np.sqrt(2))])
def test_peaks_between_samples_count(turn, sample):
    tone = 0.5 * np.sin(np.pi / 2 * np.arange(96000) + turn)[:, None]
    assert np.abs(tone).max() == pytest.approx(sample)
    assert -6.4 < true_peak(tone, 48000) < -5.8  # Tech 3341, cases 15 and 16


def written(path, samples, rate=44100):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return path


def levelled(folder, samples):
    level(written(folder / "in.wav", samples), folder / "out.wav")
    with wave.open(str(folder / "out.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (44100, *samples.shape[::-1])
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(samples.shape)


@pytest.mark.parametrize("decibels", [-50, -30, -3])
def test_a_file_is_brought_to_one_loudness(tmp_path, decibels):
    found = levelled(tmp_path, sine(decibels, 2.35, 44100))
    assert loudness(found, 44100) == pytest.approx(LOUDNESS, abs=0.1)


def test_where_both_cannot_be_had_the_peak_wins(tmp_path):
    sound = sine(-40, 3, 44100)
    sound[5000] = 0.5
    found = levelled(tmp_path, sound)
    assert true_peak(found, 44100) == pytest.approx(PEAK, abs=0.05) and loudness(found, 44100) < LOUDNESS - 5


def test_silence_stays_silent(tmp_path):
    assert not levelled(tmp_path, np.zeros((44100, 2))).any()
