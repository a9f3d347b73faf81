"""The page's section on how good the reward models are on held-out pairs (docs/method.md §12.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gapt_jax.evaluation.results import Study
from gapt_jax.report.html import Cell, Table, Text, digits_of, number, render

_RETRIEVAL = {"recall_at_1": "R@1 ↑", "recall_at_5": "R@5 ↑", "recall_at_10": "R@10 ↑", "map_at_10": "mAP@10 ↑"}
_JUDGEMENT = {"precision": "Precision ↑", "recall": "Recall ↑", "f1": "F1 ↑"}


def collected(study: Study) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by reward model and dataset as an evaluation holds them, the seeds of all pre-trainings together."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    known: set[tuple[str, str, int]] = set()  # runs of one pre-training share its reward models
    for run in study.runs:
        for model, datasets in run.evaluation.get("reward_models", {}).items():
            for dataset, figures in datasets.items():
                if (model, dataset, run.upstream_seed) not in known:
                    known.add((model, dataset, run.upstream_seed))
                    before = found.setdefault(model, {}).setdefault(dataset, {**figures, "seeds": []})
                    before["seeds"] = [*before["seeds"], *figures["seeds"]]
    return found


def section(study: Study) -> str:
    """Tables of retrieval and of judgement, where runs have measured them."""
    examples, retrieval, judgement = study.domain.examples, list[list[Text]](), list[list[Text]]()
    for model, datasets in collected(study).items():
        for dataset, figures in datasets.items():
            name = Cell(model.replace("_", " "), dataset, "below")
            beside = [str(figures["n_songs"]), str(len(figures["seeds"]))]
            if figures["kind"] == "discriminative":
                judgement.append([name, *beside, *_cells(figures["seeds"], _JUDGEMENT)])
            else:
                for direction in figures["seeds"][0]:
                    seeds = [seed.get(direction, {}) for seed in figures["seeds"]]
                    chance = number(1 / figures["n_songs"], 4)
                    row = [name, direction.replace("_", " "), *beside, chance, *_cells(seeds, _RETRIEVAL)]
                    retrieval.append(row)
    if not (retrieval or judgement):
        return ""
    count = [examples.capitalize(), "Seeds"]
    head: list[Text] = ["Reward model", "Looks from", *count, "R@1 by chance", *_RETRIEVAL.values()]
    published = study.domain.published_rewards
    return render(
        "rewards.html",
        retrieval=Table("Retrieval", head, retrieval) if retrieval else None,
        judgement=Table("Judgement", ["Reward model", *count, *_JUDGEMENT.values()], judgement) if judgement else None,
        published=Table("Published reward models", published[0], published[1:]) if published else None,
        examples=examples,
    )


def _cells(seeds: Sequence[Mapping[str, float | None]], names: Mapping[str, str]) -> list[Text]:
    """The mean over seeds of each figure, with the range where they differ; a dash where one is not defined."""
    cells: list[Text] = []
    for name in names:
        found = [seed.get(name) for seed in seeds]
        values = [float("nan") if value is None else float(value) for value in found]
        digits, mean = digits_of([1.0]), sum(values) / len(values)
        ends = [number(end, digits) for end in (min(values), max(values))]
        cells.append(Cell(number(mean, digits), "–".join(ends) if mean == mean and ends[0] != ends[1] else "", "below"))
    return cells
