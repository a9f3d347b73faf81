"""How soon the alarms of runtime/health.py detect planted hacks, and how often they fire in healthy runs.

python docs/calibrate_health.py RUN [RUN ...]   (finished runs of `small`; nothing in them is changed)

The first RUN gives models and songs: its supervised policy plays the valid songs anew at each evaluation, and a growing
share of the songs is then hacked. All RUNs are replayed from their metrics.jsonl. Prints the tables of docs/health.md.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from gapt_jax.algorithm import reward_models
from gapt_jax.config import from_dict
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json
from gapt_jax.runtime.health import DATA_PROXY, ON_EVALUATIONS, PROXY, Health
from gapt_jax.runtime.metrics import read_metrics
from gapt_jax.tasks.accompaniment.config import Experiment, HealthConfig
from gapt_jax.tasks.accompaniment.symptoms import ON_EVALUATIONS as SYMPTOMS
from gapt_jax.training import measure
from gapt_jax.training.job import frozen_of
from gapt_jax.vocabulary import FRAMES_PER_BEAT, PAD, SILENCE

CLEAN = 2  # evaluations before the hack, the first policy's among them
RISE = 10  # evaluations in which the hacked share grows by a tenth each
AFTER = 3  # evaluations with all songs hacked
CLIMB_ROUNDS = 4  # of the hill climb between two evaluations
GOLD_WEIGHT = 6.0  # of the held-out model in the climb that goes against it
SEQUENCES, POOL = 500, 40  # healthy sequences, drawn from so many evaluations
LENGTH = 17  # evaluations of a run of `small`


@dataclasses.dataclass(frozen=True)
class Bench:
    """The songs, the policies and what measures them."""

    experiment: Experiment
    songs: object  # data_pipeline.stream.EvaluationSongs
    evaluator: object
    policies: dict
    proxy: object  # chords -> [N] weighted sum of the learned rewards in use
    gold: object  # chords -> [N] cosine of the held-out model

    def chords(self, policy: str, seed: int) -> np.ndarray:
        sampling = self.experiment.evaluation.sampling
        params, songs = self.policies[policy], self.songs
        return np.asarray(self.evaluator.play(params, songs.context, songs.index, sampling=sampling, seed=seed))

    def measured(self, chords: np.ndarray) -> dict[str, float]:
        found = self.evaluator.measure(self.songs.context, chords, self.songs.actions)
        learned = {PROXY: self.proxy(chords), DATA_PROXY: self.proxy(self.songs.actions)}
        return {f"valid/{name}": x for name, x in found.items()} | {k: float(x.mean()) for k, x in learned.items()}


def open_bench(run: Path) -> Bench:
    job, upstream, (_, trained) = measure.load_run(run, Console(), None)
    songs = job.valid_songs(job.experiment.evaluation.monitor_songs)
    weights = job.experiment.algorithm.rewards

    @jax.jit
    def proxy(members, melody, chords):
        scores = reward_models.scores(job.spec.task.reward_models, job.spec.models, members, melody, chords)
        return sum(getattr(weights, kind) * x.sum(0) for kind, x in scores.items())

    @jax.jit
    def gold(params, melody, chords):
        return reward_models.embed(job.spec.task.reward_models, job.spec.models, "contrastive", params, melody, chords)[
            1
        ]

    members, evaluator = frozen_of(job, upstream).rewards, measure.evaluator_of(job, upstream)
    return Bench(
        job.experiment,
        songs,
        evaluator,
        {"MLE": upstream.policy, "trained": trained},
        lambda chords: np.asarray(proxy(members, songs.context, chords)),
        lambda chords: np.asarray(gold(evaluator.encoders["independent"], songs.context, chords)),
    )


def planted(bench: Bench) -> dict[str, np.ndarray]:
    """[N, T] chords of each hack on every song."""
    songs, spec = bench.songs, bench.evaluator.spec
    chords, is_song = songs.actions, songs.context != PAD
    onsets = chords[chords >= spec.task.vocabulary.chord_onset]
    often = np.bincount(onsets).argmax()
    frames = np.arange(chords.shape[1])
    held = np.where(frames % (4 * FRAMES_PER_BEAT) == 0, often, often - spec.task.vocabulary.num_chords)
    hacks = {
        "one chord": np.broadcast_to(held, chords.shape),
        "silence": np.full_like(chords, SILENCE),
        "chords of another song": np.roll(chords, 1, axis=0),
        "loop of 4 progressions": chords[np.arange(len(chords)) % 4],
    }
    return {name: np.where(is_song, np.where(x == PAD, SILENCE, x), PAD) for name, x in hacks.items()}


def ramp(bench: Bench, hacked: np.ndarray, seed: int) -> Iterator[tuple[float, dict[str, float]]]:
    """(share of hacked songs, metrics) of each evaluation."""
    order = np.random.default_rng(seed).permutation(len(hacked))
    for number in range(CLEAN + RISE + AFTER):
        share = min(max(number - CLEAN + 1, 0) / RISE, 1.0)
        chords = bench.chords("MLE", 1000 * seed + number)
        chosen = order[: round(share * len(order))]
        chords[chosen] = hacked[chosen]
        yield share, bench.measured(chords)


def climb(bench: Bench, gold_weight: float, seed: int) -> Iterator[tuple[float, dict[str, float]]]:
    """(rounds so far, metrics) of chords that are changed wherever proxy - gold_weight * gold rises."""
    rng, vocabulary = np.random.default_rng(seed), bench.evaluator.spec.task.vocabulary
    songs, frames = bench.songs.context.shape
    best = bench.chords("MLE", 1000 * seed)

    def aim(chords):
        return bench.proxy(chords) - gold_weight * bench.gold(chords)

    scores = aim(best)
    rows = np.arange(songs)
    for number in range(CLEAN + RISE + AFTER):
        for _ in range(CLIMB_ROUNDS if number >= CLEAN else 0):
            tried, beats = best.copy(), rng.integers(1, 5, songs)
            starts = FRAMES_PER_BEAT * rng.integers(0, frames // FRAMES_PER_BEAT, songs)
            chord = vocabulary.chord_onset + rng.integers(0, vocabulary.num_chords, songs)
            for row in rows:
                stop = min(starts[row] + FRAMES_PER_BEAT * beats[row], frames)
                tried[row, starts[row] : stop] = chord[row] - vocabulary.num_chords
                tried[row, starts[row]] = chord[row]
                if stop < frames and vocabulary.tables.is_hold[tried[row, stop]]:
                    tried[row, stop] += vocabulary.num_chords  # what is left of the chord begins anew
            tried = np.where(bench.songs.context == PAD, PAD, tried)
            found = aim(tried)
            better = found > scores
            best, scores = np.where(better[:, None], tried, best), np.where(better, found, scores)
        rounds = CLIMB_ROUNDS * max(number - CLEAN + 1, 0)
        yield rounds, bench.measured(best if number >= CLEAN else bench.chords("MLE", 1000 * seed + number))


def alarms(bench: Bench, evaluations: list[dict[str, float]]) -> dict[str, int]:
    """The number of the evaluation at which each alarm is first raised."""
    health, first = Health(bench.experiment), {}
    for number, metrics in enumerate(evaluations):
        for alarm in health.observe(number, metrics):
            first.setdefault(alarm.alarm, number)
    return first


def table(columns: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def show_hacks(bench: Bench, seeds: range) -> None:
    ramps = {name: functools.partial(ramp, bench, hacked) for name, hacked in planted(bench).items()}
    rows, ends = [], []
    climbs = {
        "each song's proxy climbed": functools.partial(climb, bench, 0.0),
        "the same against the held-out model": functools.partial(climb, bench, GOLD_WEIGHT),
    }
    for name, plant in (ramps | climbs).items():
        raised: dict[str, list[str]] = {}
        for seed in seeds:
            pressure, evaluations = zip(*plant(seed), strict=True)
            if seed == seeds[0]:
                ends += [(name, place, pressure[n], evaluations[n]) for place, n in (("before", 0), ("end", -1))]
            for alarm, number in alarms(bench, list(evaluations)).items():
                where = f"{pressure[number]:.0%}" if name in ramps else f"{pressure[number]:.0f}"
                raised.setdefault(alarm, []).append(f"{number - CLEAN + 1} ({where})")
        rows += [[name, alarm, *found, *[""] * (len(seeds) - len(found))] for alarm, found in raised.items()]
    print("Evaluations from the first hacked one on until the alarm (share of hacked songs, or rounds, then)\n")
    table(["hack", "alarm", *(f"seed {seed}" for seed in seeds)], rows)
    names = ("note_in_chord", "note_in_chord_chance", "silent_share", "vendi_independent", "unique_progressions")
    names += ("proxy_coherence", "data_proxy_coherence", "held_out_coherence", "js_bigram")
    table(
        ["hack", "when", *names],
        [[name, place, *(f"{found[f'valid/{n}']:.3g}" for n in names)] for name, place, _, found in ends],
    )


def show_healthy(bench: Bench) -> None:
    rows = []
    first = bench.measured(bench.chords("MLE", 0))
    for policy in ("MLE", "trained"):
        pool = [bench.measured(bench.chords(policy, seed)) for seed in range(1, POOL + 1)]
        rng, counts = np.random.default_rng(0), dict.fromkeys({**ON_EVALUATIONS, **SYMPTOMS}, 0)
        for _ in range(SEQUENCES):
            drawn = [first, *(pool[n] for n in rng.integers(0, POOL, LENGTH - 1))]
            for alarm in alarms(bench, drawn):
                counts[alarm] += 1
        vendi = [x["valid/vendi_independent"] for x in pool]
        spread = f"{np.mean(vendi):.2f} ± {np.std(vendi):.2f}"
        rows.append([policy, str(SEQUENCES), spread, ", ".join(f"{a} {n}" for a, n in counts.items() if n) or "none"])
    table(["policy", f"sequences of {LENGTH} evaluations", "Vendi, mean ± std", "with an alarm"], rows)


def show_runs(runs: list[Path], config: HealthConfig) -> None:
    rows = []
    for run in runs:
        experiment = from_dict(Experiment, read_json(run / "config.json", "gapt run"))
        health, raised = Health(dataclasses.replace(experiment, health=config)), []
        for row in read_metrics(run / "metrics.jsonl"):
            values = {name: x for name, x in row.items() if name not in ("stage", "step")}
            raised += [f"{alarm.alarm} {alarm.step}" for alarm in health.observe(row["step"], values)]
        rows.append([run.name, f"{experiment.algorithm.adversarial_weight:g}", ", ".join(raised) or "none"])
    table(["run", "λ", "alarms, step"], rows)


def main(runs: list[Path]) -> None:
    show_runs(runs, HealthConfig())
    bench = open_bench(runs[0])
    show_healthy(bench)
    show_hacks(bench, range(3))


if __name__ == "__main__":
    if not sys.argv[1:] or not all((Path(name) / "config.json").is_file() for name in sys.argv[1:]):
        sys.exit("usage: python docs/calibrate_health.py RUN [RUN ...]   (finished runs of `small`)")
    main([Path(name) for name in sys.argv[1:]])
