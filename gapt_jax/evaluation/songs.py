"""Intervals for fresh songs too: a difference of two arms over seeds and songs (docs/method.md §12.8). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gapt_jax.evaluation import results
from gapt_jax.evaluation.diversity import vendi
from gapt_jax.evaluation.results import Run, Study, Systems
from gapt_jax.evaluation.statistics import Interval, paired_bootstrap

RESAMPLES = 100  # of the songs; Vendi takes most of the time
VENDI: tuple[tuple[str, ...], Callable[..., float]] = (("independent",), vendi)


def intervals(study: Study, systems: Systems) -> dict[tuple[str, str, str], Interval]:
    """95 % intervals of arm minus baseline for fresh seeds and fresh songs, by (arm, dataset, metric), where the runs
    have kept what was measured on each song."""
    runs = {(run.arm, run.seed): run for run in study.runs if run.songs}
    statistics = {results.PRIMARY: VENDI, **study.domain.statistics}
    found = {}
    for arm in study.arms:
        seeds = [seed for name, seed in runs if name == arm and (study.baseline, seed) in runs]
        if arm == study.baseline or len(seeds) < 2:
            continue
        pairs = [(runs[arm, seed], runs[study.baseline, seed]) for seed in seeds]
        for dataset in results.datasets(systems):
            for metric, (names, statistic) in statistics.items():
                rows = _same_songs(pairs, dataset, names)
                interval = rows and paired_bootstrap(*rows, statistic, RESAMPLES)
                if interval:
                    found[arm, dataset, metric] = interval
    return found


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
