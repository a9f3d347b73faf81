"""Loudness of sound by ITU-R BS.1770-5: K-weighting, gating and true peak; and files brought to one loudness."""

from __future__ import annotations

import math
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly, sosfilt

LOUDNESS, PEAK = -16.0, -1.0  # LUFS, dBTP: where both cannot be had the peak wins
_STEPS = 4  # that a block of 400 ms has; blocks begin 100 ms apart
_ABSOLUTE, _RELATIVE = -70.0, -10.0  # gates: LUFS, and LU below the mean of what passes the first
_OVERSAMPLED, _MARGIN = 4, 64  # true peak: times; samples beside a piece that its filter needs
_FULL = 32768.0


def k_weighting(rate: int) -> np.ndarray:
    """[2, 6] second-order sections for a sample rate in Hz: the shelf of the head, the high pass. At 48 kHz they are
    tables 1 and 2 of BS.1770."""
    turn = math.tan(math.pi * 1681.974450955533 / rate)
    quality, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle, scale = high**0.4996667741545416, 1 + turn / quality + turn**2
    shelf = [
        *((high + middle * turn / quality + turn**2) / scale, 2 * (turn**2 - high) / scale),
        (high - middle * turn / quality + turn**2) / scale,
        *(1.0, 2 * (turn**2 - 1) / scale, (1 - turn / quality + turn**2) / scale),
    ]
    turn, quality = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    scale = 1 + turn / quality + turn**2
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (turn**2 - 1) / scale, (1 - turn / quality + turn**2) / scale]
    return np.array([shelf, high_pass])


def loudness(samples: np.ndarray, rate: int) -> float:
    """Integrated loudness in LUFS of samples [F, C], int16 or floats in -1..1, whose channels all count alike (left and
    right, or one). -inf where nothing passes the gates, or nothing lasts 400 ms."""
    sections, hop = k_weighting(rate), round(rate / 10)
    state = np.zeros((len(sections), 2, samples.shape[1]))
    powers = []
    for piece in _pieces(samples, 10 * hop):
        weighted, state = sosfilt(sections, piece, axis=0, zi=state)
        whole = weighted[: len(weighted) // hop * hop]
        powers.append(np.square(whole).reshape(-1, hop, whole.shape[1]).mean(axis=1).sum(axis=1))
    steps = np.concatenate([np.zeros(0), *powers])
    if len(steps) < _STEPS:
        return -math.inf
    blocks = np.convolve(steps, np.full(_STEPS, 1 / _STEPS), "valid")
    loud = blocks[blocks > _power(_ABSOLUTE)]
    if not len(loud):
        return -math.inf
    return _lufs(float(loud[loud > loud.mean() * 10 ** (_RELATIVE / 10)].mean()))


def true_peak(samples: np.ndarray, rate: int) -> float:
    """The highest peak in dBTP between samples [F, C], as in `loudness`, by four times their rate; -inf of silence."""
    highest = 0.0
    for first in range(0, len(samples), rate):
        piece = _scaled(samples[max(0, first - _MARGIN) : first + rate + _MARGIN])
        highest = max(highest, float(np.abs(resample_poly(piece, _OVERSAMPLED, 1, axis=0)).max()))
    return 20 * math.log10(highest) if highest else -math.inf


def level(source: Path, target: Path) -> None:
    """Writes a WAV file of 16 bits anew at `LOUDNESS`, or below it where its peaks would pass `PEAK`. Silence stays."""
    with wave.open(str(source)) as sound:
        shape = sound.getparams()
        samples = np.frombuffer(sound.readframes(shape.nframes), "<i2").reshape(-1, shape.nchannels)
    found = loudness(samples, shape.framerate)
    decibels = min(LOUDNESS - found, PEAK - true_peak(samples, shape.framerate)) if math.isfinite(found) else 0.0
    with wave.open(str(target), "wb") as sound:
        sound.setparams(shape)
        for piece in _pieces(samples, shape.framerate):
            scaled = np.rint(piece * (_FULL * 10 ** (decibels / 20)))
            sound.writeframesraw(np.clip(scaled, -_FULL, _FULL - 1).astype("<i2").tobytes())


def _pieces(samples: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """Samples as floats, so many at a time: 15 minutes as floats would be 600 MB."""
    for first in range(0, len(samples), length):
        yield _scaled(samples[first : first + length])


def _scaled(samples: np.ndarray) -> np.ndarray:
    return samples / _FULL if samples.dtype == np.int16 else samples


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))
