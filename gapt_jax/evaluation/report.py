"""`gapt report`: reads run folders, writes report.html, PNG figures, results.csv and results.json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.evaluation import page, results
from gapt_jax.evaluation.metrics import describe
from gapt_jax.evaluation.results import Run, Systems
from gapt_jax.evaluation.statistics import estimate
from gapt_jax.runtime.files import read_json, read_vocabulary, strict_json, write_atomic

SCHEMA = 1


def write_report(runs: Sequence[Path], out: Path) -> list[Path]:
    """Writes the report of these run folders into `out` and returns the files, the page first.

    Runs of one λ are its seeds. Nothing is written before everything was read and drawn.
    """
    try:
        from gapt_jax.evaluation import figures, piano_roll
    except ImportError as error:
        raise UserError("the report needs matplotlib: pip install 'gapt-jax[report]'") from error
    if not runs:
        raise UserError("there is no run to report: name one or more folders that 'gapt run' has made")
    read = sorted((read_run(Path(path)) for path in runs), key=lambda run: (run.adversarial_weight, run.seed))
    systems = results.collect(read)
    comparisons = results.compare(systems)
    drawn, rolls = list(figures.draw_all(read, systems)), list(piano_roll.draw_all(read))
    html = page.render(read, systems, comparisons, drawn, rolls, page.report_command(read, str(out)))
    files: dict[str, str | bytes] = {
        "report.html": html,
        "results.json": strict_json(results.to_json(read, systems, comparisons), indent=1) + "\n",
        "results.csv": _csv(systems),
        **{f"{figure.name}.png": figure.png for figure in [*drawn, *rolls]},
    }
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]


def read_run(folder: Path) -> Run:
    """A run folder's files. Raises UserError that names the file and the command that makes it."""
    evaluation = _evaluation(folder / "evaluation.json")
    config = _table(
        folder / "config.json", "gapt run", ("name", "pretrain.seed", "algorithm.discriminator.gate_threshold")
    )
    facts = ("command", "config_hash", "data_fingerprint", "git_revision", "versions", "hardware", "time_s")
    record = _table(folder / "run.json", "gapt run", facts)
    vocabulary = read_vocabulary(folder / "vocabulary.json")
    return Run(
        path=str(folder),
        seed=int(evaluation["seed"]),
        adversarial_weight=float(evaluation["adversarial_weight"]),
        upstream_seed=int(config["pretrain"]["seed"]),
        config=config,
        record=record,
        evaluation=evaluation,
        log=_log(folder / "metrics.jsonl"),
        samples=_samples(folder / "samples.json", vocabulary.size),
        vocabulary=vocabulary,
    )


def _table(path: Path, made_by: str, needed: Sequence[str]) -> dict[str, Any]:
    """A JSON object that has the `needed` dotted paths."""
    data = read_json(path, made_by)
    for dotted in needed:
        node = data
        for key in dotted.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if node is None:
            raise _damaged(path, f"'{dotted}' is missing", made_by)
    return data


def _evaluation(path: Path) -> dict[str, Any]:
    needed = (
        "schema",
        "seed",
        "adversarial_weight",
        "sampling",
        "config_hash",
        "data_fingerprint",
        "systems",
    )
    data = _table(path, "gapt evaluate", needed)
    if data["schema"] != SCHEMA:
        raise UserError(f"{path} has schema {data['schema']}, not {SCHEMA}: make it anew with 'gapt evaluate'")
    try:
        int(data["seed"]), float(data["adversarial_weight"])
        for system, datasets in data["systems"].items():
            float(system.removeprefix(results.ARM) if system.startswith(results.ARM) else 0)
            for metrics in datasets.values():
                for entry in metrics.values():
                    float(entry["mean"] or 0), int(entry["n_songs"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(
            path, f"not of the form systems.<system>.<dataset>.<metric>: {error!r}", "gapt evaluate"
        ) from None
    return data


def _samples(path: Path, vocabulary_size: int) -> dict[str, Any]:
    data = _table(path, "gapt evaluate", ("dataset", "ids", "melody", "systems"))
    try:
        shape = np.shape(data["melody"])
        for rows in (data["melody"], *data["systems"].values()):
            tokens = np.array(rows)
            fits = tokens.shape == shape == (len(data["ids"]), shape[1]) and tokens.dtype.kind == "i"
            if not fits or tokens.min(initial=0) < 0 or tokens.max(initial=0) >= vocabulary_size:
                raise ValueError("its parts are not tokens [songs, frames] of the run's vocabulary")
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise _damaged(path, str(error), "gapt evaluate") from None
    return data


def _log(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; a last line without its end is what a killed run leaves, and is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it with 'gapt run'") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and line.endswith("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                raise _damaged(path, f"line {number} is not JSON", "gapt run") from None
            if not isinstance(row, dict) or not isinstance(row.get("step", 0), int):
                raise _damaged(path, f"line {number} is not an object with a whole 'step'", "gapt run")
            rows.append(row)
    return rows


def _damaged(path: Path, fault: str, made_by: str) -> UserError:
    return UserError(f"{path} is damaged ({fault}): make it anew with '{made_by}'")


def _csv(systems: Systems) -> str:
    """One line per system, dataset and metric; `per_seed` is separated by semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = "system,dataset,metric,unit,mean,ci95_low,ci95_high,n_seeds,n_songs,seeds,per_seed"
    writer.writerow(head.split(","))
    for system, datasets in systems.items():
        for dataset, metrics in datasets.items():
            for metric, score in metrics.items():
                mean = estimate(score.values)
                low, high = mean.ci95 or ("", "")
                seeds, values = (";".join(map(str, part)) for part in (score.by_seed, score.values))
                numbers = (mean.mean, low, high, mean.n, score.n_songs, seeds, values)
                writer.writerow([system, dataset, metric, describe(metric).unit, *numbers])
    return text.getvalue()
