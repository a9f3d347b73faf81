"""Rule penalties: hand-made songs at every border, and a slow computation of docs/method.md §1.3 and §5.3."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapt_jax.algorithm.rollout import valid_along
from gapt_jax.tasks.accompaniment import rules
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import BOS, CHORD_HOLD, EOS, NOTE_HOLD, NOTE_ONSET, PAD, SILENCE, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
TABLES = VOCABULARY.tables
FRAMES = 64
C, C_, D, D_ = VOCABULARY.chord_onset, CHORD_HOLD, VOCABULARY.chord_onset + 2, CHORD_HOLD + 2  # _ = hold
NOTE = NOTE_ONSET + 60
S = SILENCE


class Undecodable(Exception):
    pass


def decode(part: list[int]) -> list[int]:
    """Chord numbers of the events of a part, in order; PAD BOS EOS are dropped first (docs/method.md §5.3)."""
    events, sounding = [], None
    for token in (t for t in part if t not in (PAD, BOS, EOS)):
        if token == SILENCE:
            sounding = None
        elif token < CHORD_HOLD:
            raise Undecodable("a token of the other part")
        elif token >= VOCABULARY.chord_onset:
            sounding = token - VOCABULARY.chord_onset
            events.append(sounding)
        elif sounding is None:
            sounding = token - CHORD_HOLD
            events.append(sounding)
        elif sounding != token - CHORD_HOLD:
            raise Undecodable("a hold of another chord")
    return events


def runs(items: list[int]) -> list[int]:
    return [len(list(group)) for _, group in itertools.groupby(items)]


def reference(chords: list[int], melody: list[int]) -> dict:
    """All penalties of one song of length L = len(melody)."""
    length, out = len(melody), {}
    ends = [t for t, token in enumerate(chords) if token in (EOS, PAD)]
    out["early_stop"] = (ends[0] - length) / 10 if ends else 0.0
    try:
        events = decode(chords)
        out["invalid"] = -10.0 if any(token <= 2 for token in chords) else 0.0
        out["repetition"] = -sum(n for n in runs(events) if n > 4) / 10
    except Undecodable:
        out["invalid"], out["repetition"] = -10.0, -1.0
    heard = chords[: chords.index(PAD)] if PAD in chords else chords
    out["long_note"] = -sum(n for n in runs(heard) if n > 31) / 10
    silent = [t for t in range(8, length) if chords[t] == SILENCE and melody[t] != SILENCE]
    guilty = length > 8 and len(silent) * 100 > 4 * (length - 8)  # in integers
    out["silence"] = [-0.1 if guilty and t in silent else 0.0 for t in range(length)]
    return out


@jax.jit
def all_rules(chords, melody):
    mask = (melody != PAD).astype(jnp.float32)
    return {
        "early_stop": rules.early_stop(chords, mask),
        "invalid": rules.invalid_output(chords, mask, TABLES),
        "repetition": rules.repetition(chords, mask, TABLES),
        "long_note": rules.long_note(chords, mask),
        "silence": rules.silence(chords, melody, mask),
    }


def penalties(chords: list[int], melody: list[int] | None = None, after: int = PAD) -> dict:
    """What the vectorised rules say of one song padded to 64 frames; `after` fills the chord part after the end."""
    melody = [NOTE] * len(chords) if melody is None else melody
    rest = FRAMES - len(melody)
    out = all_rules(jnp.array([chords + [after] * rest], jnp.int32), jnp.array([melody + [PAD] * rest], jnp.int32))
    out = {name: np.asarray(value)[0] for name, value in out.items()}
    assert np.all(out["silence"][len(melody) :] == 0)
    return out | {"silence": out["silence"][: len(melody)]}


def near(value):
    return pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("chords", "is_broken"),
    [
        ([C, C_, D, D_, S, C], False),
        ([C_, C_, D], False),  # a HOLD opens an event at the start (a crop may begin there) ...
        ([C, S, D_, D_], False),  # ... and after silence
        ([C, C, C_], False),  # a repeated chord
        ([C, D_], True),  # a HOLD of another chord than sounds
        ([C_, D_], True),
        ([C, S, D_, C_], True),
        ([C, D, C_], True),
        ([C, NOTE, C], True),  # a note in the chord part
        ([C, NOTE_HOLD + 60, C], True),
        ([C, PAD, D], True),  # special tokens inside the song
        ([C, EOS, D], True),
        ([C, BOS, D], True),
        ([C, D, EOS], True),
        ([S, S, S], False),
    ],
)
def test_invalid_output(chords, is_broken):
    assert penalties(chords)["invalid"] == (-10.0 if is_broken else 0.0)


@pytest.mark.parametrize("after", [PAD, EOS, NOTE, D_])
def test_nothing_after_the_end_counts(after):
    out = penalties([C, C_, C_, C_], after=after)
    assert {name: float(np.sum(value)) for name, value in out.items()} == dict.fromkeys(out, 0.0)


@pytest.mark.parametrize(
    ("chords", "penalty"),
    [
        ([C, D, C, D], 0.0),
        ([EOS, D, C, D], -0.4),  # k = 0, L = 4
        ([C, D, EOS, D], -0.2),
        ([C, D, PAD, EOS], -0.2),  # the first of the two
        ([C, D, C, EOS], -0.1),
        ([C, BOS, C, D], 0.0),  # BOS is invalid, but no end
    ],
)
def test_early_stop(chords, penalty):
    assert penalties(chords)["early_stop"] == near(penalty)


def test_early_stop_goes_down_to_a_tenth_per_frame():
    assert penalties([EOS] * 64)["early_stop"] == near(-6.4)


@pytest.mark.parametrize(
    ("chords", "penalty"),
    [
        ([C] * 4, 0.0),
        ([C] * 5, -0.5),
        ([C, C_, S] * 5, -0.5),  # rests and holds do not end a run
        ([C] * 4 + [D] + [C] * 4, 0.0),
        ([C] * 5 + [D] * 6, -1.1),
        ([C] * 5 + [S] + [D] * 4, -0.5),
        ([C_] + [C] * 4, -0.5),  # the HOLD at the start opens an event of its own
        ([C, S, C_, S, C_, S, C_, S, C_], -0.5),
        ([C, C_, C_, C_, C_, C_], 0.0),  # one event
        ([C, D_], -1.0),  # cannot be decoded
        ([C] * 5 + [NOTE], -1.0),
    ],
)
def test_repetition(chords, penalty):
    assert penalties(chords)["repetition"] == near(penalty)


@pytest.mark.parametrize(
    ("chords", "penalty"),
    [
        ([C] + [C_] * 31, 0.0),  # 32 frames, but 31 equal tokens
        ([C] + [C_] * 32, -3.2),  # the ONSET does not count
        ([S] * 31 + [C], 0.0),
        ([S] * 32 + [C], -3.2),
        ([S] * 32 + [C_] * 32, -6.4),
        ([C] * 32, -3.2),
        ([C_] * 31 + [C] + [C_] * 31, 0.0),
    ],
)
def test_long_note(chords, penalty):
    assert penalties(chords)["long_note"] == near(penalty)


def test_silence_border_is_4_percent_of_the_frames_after_the_first_8():
    # 33 frames: 25 count; 1 silent frame is 4 % exactly, which is not more than 4 %
    assert np.all(penalties([C] * 20 + [S] + [C] * 12)["silence"] == 0)
    out = penalties([C] * 20 + [S, S] + [C] * 11)["silence"]
    np.testing.assert_allclose(out, [0] * 20 + [-0.1] * 2 + [0] * 11, rtol=1e-6)
    # 32 frames: 24 count; 1 is more than 4 %
    assert penalties([C] * 20 + [S] + [C] * 11)["silence"][20] == near(-0.1)
    # 58 frames: 50 count; 2 are 4 % exactly
    assert np.all(penalties([C] * 20 + [S, S] + [C] * 36)["silence"] == 0)


def test_silence_is_free_in_the_first_8_frames_and_under_a_rest():
    assert np.all(penalties([S] * 8 + [C] * 8)["silence"] == 0)
    np.testing.assert_allclose(penalties([S] * 9 + [C] * 7)["silence"], [0] * 8 + [-0.1] + [0] * 7, rtol=1e-6)
    melody = [NOTE] * 8 + [S] * 4 + [NOTE] * 4
    assert np.all(penalties([C] * 8 + [S] * 4 + [C] * 4, melody)["silence"] == 0)
    assert np.all(penalties([S] * 7)["silence"] == 0)  # shorter than the free frames


SPECIAL = [PAD, BOS, EOS]
LEGAL = [C, C_, D, D_, S]


def parts(tokens):
    """Chord parts made of runs, so that long runs and repetitions occur."""
    run = st.builds(lambda token, n: [token] * n, st.sampled_from(tokens), st.sampled_from([1, 1, 1, 2, 3, 5, 31, 32]))
    return st.lists(run, min_size=1, max_size=16).map(lambda rs: list(itertools.chain(*rs))[:FRAMES])


def melodies(length):
    return st.lists(st.sampled_from([NOTE, NOTE, NOTE_HOLD + 60, S]), min_size=length, max_size=length)


def agree(chords, melody, names):
    out, expected = penalties(chords, melody), reference(chords, melody)
    for name in names:
        np.testing.assert_allclose(out[name], expected[name], rtol=1e-5, err_msg=name)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([LEGAL, [*LEGAL, NOTE]]))
def test_rules_are_those_of_the_reference(data, tokens):
    chords = data.draw(parts(tokens))
    agree(chords, data.draw(melodies(len(chords))), ("early_stop", "invalid", "repetition", "long_note", "silence"))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rules_with_special_tokens_inside_the_song(data):
    chords = data.draw(parts([*LEGAL, NOTE, *SPECIAL]))
    agree(chords, data.draw(melodies(len(chords))), ("early_stop", "invalid", "silence"))


@pytest.mark.parametrize("chords", [[C, EOS, D_], [C, EOS, C_, EOS, C_, EOS, C_, EOS, C_]])
def test_repetition_drops_special_tokens_before_it_decodes(chords):
    agree(chords, [NOTE] * len(chords), ("repetition",))


def test_long_note_stops_at_the_first_pad():
    agree([C, PAD] + [S] * 40, [NOTE] * 42, ("long_note",))


@settings(max_examples=60, deadline=None)
@given(parts(LEGAL))
def test_valid_tokens_are_exactly_those_that_keep_the_part_decodable(chords):
    """The mask allows a token at frame t if and only if the part up to t then decodes."""
    try:
        decode(chords)
    except Undecodable:
        return
    allowed = np.asarray(rules.valid_tokens(jnp.array(chords[-1]), TABLES))
    for token in (*LEGAL, C + 5, C_ + 5, NOTE, NOTE_HOLD, PAD, BOS, EOS):
        try:
            decode([*chords, token])
            decodes = token not in SPECIAL
        except Undecodable:
            decodes = False
        assert allowed[token] == decodes, (chords[-1], token)


def test_number_of_valid_tokens():
    # 12 onsets, silence, and one hold while something sounds, else any of the 12 holds
    counts = rules.valid_tokens(jnp.array([C, C_, S]), TABLES).sum(axis=-1)
    assert counts.tolist() == [14, 14, 25]
    along = valid_along(Accompaniment(VOCABULARY), jnp.array([[C, S, D]]))
    assert along.sum(axis=-1).tolist() == [[25, 14, 25]]  # frame t is ruled by the token before it
