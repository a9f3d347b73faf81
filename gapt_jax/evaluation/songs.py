"""Intervals for fresh songs too: a difference of two arms over seeds and songs (docs/method.md §12.8). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gapt_jax.evaluation import results
from gapt_jax.evaluation.diversity import vendi
from gapt_jax.evaluation.results import Run, Study, Systems
from gapt_jax.evaluation.statistics import Interval, paired_bootstrap, song_interval

Key = tuple[str, str, str]  # system, dataset, metric
RESAMPLES = 100  # of the songs; Vendi takes most of the time
VENDI: tuple[tuple[str, ...], Callable[..., float]] = (("independent",), vendi)


def intervals(study: Study, systems: Systems) -> dict[Key, Interval]:
    """95 % intervals of arm minus baseline for fresh seeds and fresh songs, by (arm, dataset, metric), where the runs
    have kept what was measured on each song."""
    found: dict[Key, Interval] = {}
    for arm, pairs in _pairs(study).items():
        for dataset, metric, names, statistic in _measured(study, systems) if len(pairs) > 1 else ():
            rows = _same_songs(pairs, dataset, names)
            interval = rows and paired_bootstrap(*rows, statistic, RESAMPLES)
            if interval:
                found[arm, dataset, metric] = interval
    return found


def intervals_of_one_pair(study: Study, systems: Systems) -> dict[Key, Interval]:
    """The same for fresh songs alone, of the arms that share one seed with the baseline."""
    found: dict[Key, Interval] = {}
    for arm, pairs in _pairs(study).items():
        for dataset, metric, names, statistic in _measured(study, systems) if len(pairs) == 1 else ():
            if rows := _same_songs(pairs, dataset, names):
                (ours,), (theirs,) = rows
                interval = song_interval((*ours, *theirs), _minus(statistic, len(ours)), RESAMPLES)
                found |= {(arm, dataset, metric): interval} if interval else {}
    return found


def intervals_of_one_seed(study: Study, systems: Systems) -> dict[Key, Interval]:
    """95 % intervals for fresh songs of the systems of which there is one seed, where each song was measured."""
    found: dict[Key, Interval] = {}
    for dataset, metric, names, statistic in _measured(study, systems):
        for system in systems:
            score = results.get(systems, system, dataset, metric)
            runs = [run for run in study.runs if run.arm == system or system not in study.arms]
            arrays = next((kept for run in runs if (kept := _arrays(run, system, dataset, names))), None)
            if score and len(score.by_seed) == 1 and arrays:
                interval = song_interval(arrays, statistic, RESAMPLES)
                found |= {(system, dataset, metric): interval} if interval else {}
    return found


def _measured(study: Study, systems: Systems) -> Iterator[tuple[str, str, tuple[str, ...], Callable[..., float]]]:
    """(dataset, metric, arrays that it is made of, function)."""
    for dataset in results.datasets(systems):
        for metric, (names, statistic) in {results.PRIMARY: VENDI, **study.domain.statistics}.items():
            yield dataset, metric, names, statistic


def _pairs(study: Study) -> dict[str, list[tuple[Run, Run]]]:
    """(run, run of the baseline) of the same seed by arm, of those that have kept what was measured on each song."""
    runs = {(run.arm, run.seed): run for run in study.runs if run.songs}
    return {
        arm: [
            (run, runs[study.baseline, seed])
            for (name, seed), run in runs.items()
            if name == arm and (study.baseline, seed) in runs
        ]
        for arm in study.arms
        if arm != study.baseline
    }


def _minus(statistic: Callable[..., float], width: int) -> Callable[..., float]:
    return lambda *x: statistic(*x[:width]) - statistic(*x[width:])


def _arrays(run: Run, system: str, dataset: str, names: tuple[str, ...]) -> list[np.ndarray] | None:
    found = [run.songs.get(f"{system}|{dataset}|{name}") for name in names]
    return None if any(x is None for x in found) else [x for x in found if x is not None]


Rows = list[tuple[np.ndarray, ...]]  # by seed


def _same_songs(pairs: list[tuple[Run, Run]], dataset: str, names: tuple[str, ...]) -> tuple[Rows, Rows] | None:
    """The arrays `names` of the songs that all of these runs have played, by seed: (of the arms, of the baselines)."""

    def array(run: Run, name: str) -> np.ndarray | None:
        songs: Mapping[str, np.ndarray] = run.songs
        return songs.get(f"{run.arm}|{dataset}|{name}")

    flat = [run for pair in pairs for run in pair]
    played = [array(run, "song") for run in flat]
    arrays = [[array(run, name) for name in names] for run in flat]
    if any(x is None for x in played) or any(x is None for row in arrays for x in row):
        return None
    common = set.intersection(*(set(np.asarray(x).tolist()) for x in played))
    chosen: Rows = [
        tuple(np.asarray(x)[np.isin(np.asarray(song), list(common))] for x in row)
        for song, row in zip(played, arrays, strict=True)
    ]
    return chosen[::2], chosen[1::2]
