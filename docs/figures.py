"""Draws figures of docs/*.md from the JSON that commands wrote and that is committed beside the pages.

python docs/figures.py           draws all of them
python docs/figures.py NAME...   draws these, as in ablation/paths.png
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gapt_jax.evaluation.results import ARM, Run, Score, Study
from gapt_jax.report import curves, figures
from gapt_jax.report.drawing import finish
from gapt_jax.report.tables import Results
from gapt_jax.runtime.files import write_atomic
from gapt_jax.task import Domain, Task
from gapt_jax.tasks.accompaniment.domain import DOMAIN as MUSIC
from gapt_jax.tasks.turn_taking.domain import DOMAIN as TURN_TAKING

DOCS = Path(__file__).parent


def found(name: str, arms: Mapping[str, str] | None = None, domain: Domain = MUSIC) -> Results:
    """What a results.json of `gapt report` says. `arms`: those to keep, with the names that the figure gives them;
    without it all, by λ or by what their preset calls them."""
    results: dict[str, Any] = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        by_arm.setdefault(run.get("arm", f"{ARM}{run['lambda']:g}"), []).append(run)
    labels = results.get("names", {})
    named = arms or {arm: arm if arm.startswith(ARM) else labels[arm].replace("\u00a0", "") for arm in by_arm}
    learning = results.get("learning", {})
    runs = [_run(run, named[arm], learning.get(arm, {}), domain) for arm in named for run in by_arm[arm]]
    systems = {
        named.get(system, system): {
            dataset: {
                metric: Score(dict(zip(score["seeds"], score["per_seed"], strict=True)), score["n_songs"])
                for metric, score in metrics.items()
            }
            for dataset, metrics in by_dataset.items()
        }
        for system, by_dataset in results["systems"].items()
        if system in named or system in ("data", "mle")
    }
    return Results(Study(runs, []), systems, [])


def _run(run: dict[str, Any], arm: str, learning: dict[str, Any], domain: Domain) -> Run:
    """A run with what the figures ask of it: whose it is, and its evaluations while it learned."""
    learned = learning.get(str(run["seed"]), {"step": []})
    log = [
        {"stage": curves.STAGE, "step": step} | {f"valid/{key}": learned[key][i] for key in learned if key != "step"}
        for i, step in enumerate(learned["step"])
    ]
    no_task = cast(Task, None)  # these figures ask for none
    return Run(
        run["path"], run["seed"], run["lambda"], run["pretrain_seed"], {}, {}, {"arm": arm}, log, {}, domain, no_task,
        [], {},
    )  # fmt: skip


def joined(*parts: Results) -> Study:
    """The runs of all, in this order."""
    return Study([run for part in parts for run in part.study.runs], [])


def explored() -> Results:
    """λ = 0 and 1 at the settings of `small`."""
    return found("ablation/exploration", {"gapt_lambda=0": "gapt_lambda=0", "discriminator=actions": "gapt_lambda=1"})


def paths() -> Study:
    """What was tried on the seeds for choosing settings."""
    return joined(
        explored(),
        found("ablation/repaired", {"conditional=true,repaired=0.5": "λ=1, D(a|c)"}),
        found("ablation/open_gate", {"adversarial_weight=2": "λ=2, D(a|c), gate goes on opening"}),
    )


FIGURES: dict[str, Callable[[], Any]] = {
    "ablation/quality_diversity.png": lambda: figures.quality_diversity(found("ablation/results")),
    "ablation/over_distance.png": lambda: figures.over_distance(explored().study),
    "ablation/cures.png": lambda: figures.quality_diversity(found("ablation/cures")),
    "ablation/paths.png": lambda: figures.learning_path(paths()),
    "small/quality_diversity.png": lambda: figures.quality_diversity(found("small/results")),
    "turn_taking/arms.png": lambda: figures.arms(found("turn_taking/results", domain=TURN_TAKING)),
}


def main(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in FIGURES]:
        print(f"there is no figure '{unknown[0]}' (there are {', '.join(FIGURES)})", file=sys.stderr)
        return 2
    for name in names or FIGURES:
        write_atomic(DOCS / name, finish(name, "", "", FIGURES[name]).png)
        print(f"drew {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
