"""What the docstring of `experiments/jam.py` says of it."""

import collections
import math

import jax
import pytest

from gapt_jax import experiments, models
from gapt_jax.data_pipeline import upstream
from gapt_jax.data_pipeline.loader import choose_qualities
from gapt_jax.data_pipeline.songs import interval_mask, read_songs
from gapt_jax.experiments import jam
from gapt_jax.live.model import MOST_AHEAD
from gapt_jax.overrides import override
from gapt_jax.vocabulary import FRAMES_PER_BEAT, Vocabulary
from tests.data_pipeline.song_records import REAL_SONGS

QUALITIES, TOKENS, PARAMETERS = 13, 572, 555_360


def test_its_sizes_are_those_that_its_docstring_names():
    experiment = override(experiments.load("jam"), [])
    assert Vocabulary.synthetic(QUALITIES).size == TOKENS
    policy = models.build(experiment.models, TOKENS).policy
    shapes = jax.tree.leaves(jax.eval_shape(policy.init, jax.random.key(0)))
    assert sum(math.prod(array.shape) for array in shapes) == PARAMETERS
    words = " ".join(str(jam.__doc__).split())
    said = f"{PARAMETERS:,} parameters; `chord_coverage` gives {QUALITIES} interval sets, {12 * QUALITIES} chords"
    assert said in words and f"and {TOKENS} tokens" in words
    assert experiment.data.max_frames == 32 * FRAMES_PER_BEAT


def test_what_it_remembers_live_begins_on_a_bar_line_too():
    """The engine begins a memory anew every half window: whole bars of 4/4, 3/4, 6/8 and 12/8."""
    experiment = experiments.load("jam")
    assert experiment.data.crops_on == "bars"
    half = (experiment.data.max_frames - MOST_AHEAD) // 2
    assert [half % (16 * beats // unit) for beats, unit in ((4, 4), (2, 4), (3, 4), (6, 8), (12, 8))] == [0] * 5


def test_no_set_that_it_trains_on_forbids_to_ship_weights():
    names = [name for name, _ in experiments.load("jam").data.mixture]
    licences = {name: upstream.terms(name)[0] for name in names}
    assert licences.keys() == {"pop909", "openewld", "lily_pd"}
    assert "MIT" in licences["pop909"] and "133 of the 502 works are from after 1930" in licences["openewld"]
    assert "public domain" in licences["openewld"] and "public domain" in licences["lily_pd"]


@pytest.mark.real_data
def test_its_vocabulary_on_the_real_songs():
    data = experiments.load("jam").data
    events = collections.Counter()
    for name, _ in data.mixture:
        for song in read_songs(REAL_SONGS / f"{name}.jsonl.gz"):
            if song.split == "train":
                events.update(interval_mask(chord.intervals) for chord in song.chords)
    assert len(choose_qualities(events, data.chord_coverage)) == QUALITIES
