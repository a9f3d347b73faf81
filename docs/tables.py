"""Makes the tables of README.md and docs/*.md from the JSON that commands wrote and that is committed beside the pages.

python docs/tables.py           rewrites what stands between `<!-- table: NAME -->` and `<!-- end -->`
python docs/tables.py --check   names the tables that their JSON does not give; then it exits with 1

A new table is a function that returns its Markdown, and its name in `TABLES`. A table of which the JSON is not
committed yet stays as it was typed, under a line that says so.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(?P<begin><!-- table: (?P<name>\S+) -->\n)(?P<text>.*?)(?=<!-- end -->)", re.DOTALL)
OLDER = "*Older figures, typed by hand: their JSON was not kept.*\n"
Json = dict[str, Any]
Column = tuple[str, str, int]  # heading, metric, digits after the point


def read(name: str) -> Json:
    """The contents of a file under docs/."""
    found: Json = json.loads((DOCS / name).read_text(encoding="utf-8"))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of Markdown."""
    lines = ["|".join(["", *(f" {cell} " if cell else " " for cell in line), ""]) for line in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines) + "\n"


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")


def interval(ends: Sequence[float], digits: int) -> str:
    return f"[{', '.join(number(end, digits) for end in ends)}]"


# Scores: results.json of `gapt report`, evaluation.json of `gapt evaluate`

VENDI: Column = ("Vendi, independent", "vendi_independent", 2)
HARMONY: Sequence[Column] = (("note-in-chord", "note_in_chord", 3), ("by chance", "note_in_chord_chance", 3))
QUALITIES: Column = ("quality entropy", "quality_entropy", 2)
CHANGES: Column = ("chord changes a beat", "chord_changes_per_beat", 2)
DISTANCE: Column = ("distance to data, pairs", "js_bigram", 2)
SMALL = (*HARMONY, VENDI, ("Vendi, published", "vendi_published", 2), QUALITIES, CHANGES, DISTANCE)
ABLATION = (
    VENDI, *HARMONY, ("Vendi, same melody", "same_melody_vendi_independent", 2), QUALITIES, CHANGES, DISTANCE,
    ("told from data", "post_hoc_accuracy", 2), ("held-out coherence", "held_out_coherence", 2),
)  # fmt: skip
ARMS = (
    *HARMONY, VENDI, ("Vendi, same melody", "same_melody_vendi_independent", 2), CHANGES, DISTANCE,
    ("told from data", "post_hoc_accuracy", 2), ("held-out coherence", "held_out_coherence", 2),
)  # fmt: skip
SAME = {  # arms of grids and presets, by what the pages call them
    "discriminator=actions": "gapt_lambda=1",
    "conditional=true,repaired=0.5": "gapt_lambda=1",
    **{f"adversarial_weight={weight}": f"gapt_lambda={weight}" for weight in (1, 2, 4)},
}
LEARNED = (("√KL", "sqrt_kl", 2), ("note-in-chord", "note_in_chord", 3), ("Vendi", "vendi_independent", 2))
FRONT = (
    ("note-in-chord", "note_in_chord", 2), ("by chance", "note_in_chord_chance", 2), ("Vendi", "vendi_independent", 2),
    ("Vendi, one melody", "same_melody_vendi_independent", 2), ("distance to data", "js_bigram", 2),
)  # fmt: skip
TURNS = (
    ("speaks while others are silent", "clear_speech", 3), ("by chance", "clear_speech_chance", 3),
    ("speaks", "speaking_share", 3), ("nobody speaks", "silence_share", 3),
    ("answers within 400 ms", "prompt_answers", 3), ("distance to data, floor transfers", "js_transfer", 2),
    ("backchannels a minute", "backchannels_per_minute", 2), ("told from data", "post_hoc_accuracy", 2), VENDI,
    ("Vendi, one context", "same_context_vendi_independent", 2),
)  # fmt: skip
PARTNER = (
    *HARMONY, VENDI,
    ("data's half", "switch_to_agent_before", 3), ("then the agent's", "switch_to_agent_after", 3),
    ("agent's half", "switch_to_data_before", 3), ("then the data's", "switch_to_data_after", 3),
    ("influence of the note on the next chord, nats", "social_influence", 3),
)  # fmt: skip


def label(system: str) -> str:
    """``λ = 1`` for ``gapt_lambda=1``."""
    return {"mle": "MLE"}.get(system, system.replace("gapt_lambda=", "λ = "))


def named(system: str, results: Json) -> str:
    """An arm as the pages call it: λ where it differs in nothing else, or what its preset says."""
    is_known = system in ("data", "mle") or system.startswith("gapt_lambda=")
    return SAME.get(system, system if is_known else results["names"][system].replace("\u00a0", " "))


def with_interval(score: Json, digits: int) -> str:
    """The mean over seeds ± half of its 95 % interval."""
    mean, interval = number(score["mean"], digits), score["ci95"]
    return f"{mean} ± {number((interval[1] - interval[0]) / 2, digits)}" if interval else mean


def with_range(score: Json, digits: int) -> str:
    """The mean over seeds (least–greatest)."""
    mean, values = number(score["mean"], digits), score["per_seed"]
    return f"{mean} ({number(min(values), digits)}–{number(max(values), digits)})" if len(values) > 1 else mean


def scores(systems: Json, dataset: str, columns: Sequence[Column], cell: Callable[[Json, int], str]) -> str:
    """A row for each system."""
    rows = []
    for system, by_dataset in systems.items():
        found = by_dataset[dataset]
        cells = [cell(found[metric], digits) if metric in found else "–" for _, metric, digits in columns]
        rows.append([label(system), *cells])
    return table(["system", *(heading for heading, _, _ in columns)], rows)


def arms(name: str) -> str:
    """The arms of an ablation on its first data set: means over seeds (least–greatest)."""
    results = read(f"ablation/{name}.json")
    dataset = next(iter(results["systems"]["data"]))
    systems = {named(system, results): found for system, found in results["systems"].items()}
    runs = results["runs"]
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    revisions, prints = ({run[key] for run in runs} for key in ("git_revision", "data_fingerprint"))
    songs = next(iter(results["systems"]["data"][dataset].values()))["n_songs"]
    origin = f"{dataset}, {songs} songs; seeds {seeds}; revision {', '.join(f'`{r[:7]}`' for r in sorted(revisions))}"
    return scores(systems, dataset, ARMS, with_range) + f"\n{origin}; data {', '.join(f'`{p}`' for p in prints)}.\n"


def while_learning(name: str, steps: Sequence[int]) -> str:
    """Means over seeds on the valid split at equal steps, columns for each arm."""
    return _learned(name, "step", steps, LEARNED, lambda run, step: _row(run, run["step"].index(step)))


def at_equal_distance(name: str, distances: Sequence[float]) -> str:
    """The same where the √KL of each run first reaches a distance."""
    return _learned(name, "√KL", distances, LEARNED[1:], _where)


def _learned(name: str, head: str, places: Sequence[Any], columns: Sequence[Column], find: Callable[..., Json]) -> str:
    results = read(f"ablation/{name}.json")
    arms, rows = results["learning"], []
    for place in places:
        cells = [str(place)]
        for by_seed in arms.values():
            found = [find(run, place) for run in by_seed.values()]
            cells += [number(mean(one[metric] for one in found), digits) for _, metric, digits in columns]
        rows.append(cells)
    names = [label(SAME.get(arm, arm)) for arm in arms]
    return table([head, *(f"{name}: {heading}" for name in names for heading, _, _ in columns)], rows)


def _row(run: Json, index: int) -> Json:
    return {metric: values[index] for metric, values in run.items()}


def _where(run: Json, distance: float) -> Json:
    """The evaluations of a run where its √KL first reaches a distance, between two steps; else the last ones."""
    for before, after in pairwise(range(len(run["step"]))):
        low, high = run["sqrt_kl"][before], run["sqrt_kl"][after]
        if low < distance <= high:
            share = (distance - low) / (high - low)
            return {m: v[before] + share * (v[after] - v[before]) for m, v in run.items()}
    return _row(run, -1)


def by_dataset(
    results: Json, columns: Sequence[Column], cell: Callable[[Json, int], str], examples: str = "songs"
) -> str:
    """A table for each data set."""
    data = results["systems"]["data"]
    sizes = {dataset: next(iter(found.values()))["n_songs"] for dataset, found in data.items()}
    tables = (scores(results["systems"], dataset, columns, cell) for dataset in sizes)
    return "\n".join(
        f"**{name}**, {n} {examples}\n\n{rows}" for (name, n), rows in zip(sizes.items(), tables, strict=True)
    )


def front_page() -> str:
    """The first data set of the ablation, means alone, systems in words."""
    words = {"mle": "MLE: supervised alone", "gapt_lambda=0": "λ = 0: rewards alone"}
    words["gapt_lambda=1"] = "λ = 1: with the adversary"
    systems = {words.get(system, system): found for system, found in read("ablation/results.json")["systems"].items()}
    return scores(systems, "hooktheory/test", FRONT, lambda score, digits: number(score["mean"], digits))


def partner() -> str:
    """Both runs with the melody agent; the MLE is the same in both."""
    runs = [read(f"ablation/agent-lambda{weight}-seed10.json")["systems"] for weight in (0, 1)]
    assert runs[0]["mle"] == runs[1]["mle"]
    return scores(runs[0] | runs[1], "hooktheory/test", PARTNER, with_interval)


def differences() -> str:
    """Every arm beside λ = 0, in pairs of seeds."""
    rows = [
        [
            label(found["a"]), found["dataset"], f"{number(found['difference'], 2)} {interval(found['ci95'], 2)}",
            interval(found["ci95_songs"], 2), f"{found['p']:.3g}", f"{found['p_holm']:.3g}",
            f"{found['effect_size']:.1f}",
        ]
        for found in read("ablation/results.json")["comparisons"]
        if found["metric"] == "vendi_independent"
    ]  # fmt: skip
    fresh = "[95 %] for fresh songs too"
    return table(["arm", "data set", "difference [95 %]", fresh, "sign-flip p", "Holm", "effect size"], rows)


def paired(name: str, first: str, of: Callable[[Json], str], datasets: int | None = None) -> str:
    """Differences to the baseline in diversity and harmony, in pairs of seeds: a line for each `of`(comparison), under
    the heading `first`, on so many of the data sets."""
    results = read(f"ablation/{name}.json")
    shown, cells = [*results["systems"]["data"]][:datasets], dict[str, list[str]]()
    for metric, digits in (("vendi_independent", 2), ("note_in_chord", 3)):
        for row in results["comparisons"]:
            if row["metric"] == metric and row["dataset"] in shown:
                difference = f"{number(row['difference'], digits)} {interval(row['ci95'], digits)}"
                cells.setdefault(of(row), []).extend([difference, f"{row['p']:.3g}"])
    head = [first, "Vendi: difference [95 %]", "sign-flip p", "note-in-chord: difference [95 %]", "sign-flip p"]
    return table(head, ([place, *line] for place, line in cells.items()))


def against_baseline(name: str) -> str:
    """What every arm changes on the first data set."""
    results = read(f"ablation/{name}.json")
    return paired(name, "arm", lambda row: label(named(row["a"], results)), datasets=1)


# Plans: `gapt plan --json`


def plan_origin(plan: Json) -> str:
    members = f" --members {plan['members']}" if plan["members"] > 1 else ""
    earlier = f"gapt plan {plan['experiment']} --topology {plan['topology']}{members}"
    versions = ", ".join(f"{name} {version}" for name, version in plan["versions"].items())
    return f"`{plan.get('command', earlier)} --json`, revision `{plan['git_revision'][:7]}`, {versions}"


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def gate(phase: str) -> str:
    return phase + ", gate open" * (phase == "improve_discriminator")


def plans(names: Sequence[str]) -> str:
    """Memory and bound of each phase, a column for each plan."""
    found = [read(f"plan/{name}.json") for name in names]
    rows = []
    for phase in found[0]["phases"]:
        each = [plan["phases"][phase] for plan in found]
        rows.append([gate(phase), *(f"{gib(p['bytes_per_device'])}, {p['roofline_ms']:.0f} ms" for p in each)])
    largest = [max(phase["bytes_per_device"] for phase in plan["phases"].values()) for plan in found]
    shares = [f"**{size / plan['hbm_bytes']:.0%}**" for size, plan in zip(largest, found, strict=True)]
    rows.append(["**largest, share of the chip**", *shares])
    rows.append(["**an iteration, at least**", *(f"**{_milliseconds(plan) / 1e3:.2f} s**" for plan in found)])
    head = ["", *(f"{plan['devices']} × {plan['chip']}, {plan['hbm_bytes'] / 2**30:.3g} GiB" for plan in found)]
    return table(head, rows) + "\n" + "".join(f"- {plan_origin(plan)}\n" for plan in found)


def one_plan(name: str) -> str:
    """What `gapt plan` shows."""
    plan = read(f"plan/{name}.json")
    rows = []
    for phase, found in plan["phases"].items():
        size, kinds = found["bytes_per_device"], found["collectives"]
        rows.append(
            [
                phase, f"{gib(size)} ({size / plan['hbm_bytes']:.0%})", f"{found['flops'] / 1e12:.4g}",
                f"{found['hbm_traffic'] / 1e9:.4g}", f"{found['network_bytes'] / 1e9:.4g}",
                f"{found['roofline_ms']:.4g}", found["bound"],
                ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "–", f"{found['song_share']:.0%}",
            ]
        )  # fmt: skip
    work = ["TFLOP", "HBM GB", "network GB", "roofline ms", "bound", "collectives"]
    low, high = plan["efficiency"]["without_overlap"], plan["efficiency"]["with_overlap"]
    return table(["phase", "memory", *work, "rows with a song"], rows) + (
        f"\n{plan['devices']} devices, each with {gib(plan['state_bytes_per_device'])} of state and frozen models. One "
        f"iteration takes {_milliseconds(plan):.3g} ms or more.\nWeak scaling from 1 to {plan['devices']} devices: "
        f"{low:.1%} if nothing overlaps, {high:.1%} if all does.\n{plan_origin(plan)}.\n"
    )


def _milliseconds(plan: Json) -> float:
    return float(sum(phase["roofline_ms"] for phase in plan["phases"].values()))


# Speed: `gapt bench --out docs/bench/cpu.json`, and with GAPT_NATIVE=0 cpu-xla.json

TARGETS = {1: 20, 8: 9, 32: 9}  # times the public sampler, by songs
PHASES = ("rollout", "judge", "estimate", "improve_policy", "improve_discriminator", "all")


def bench(name: str) -> tuple[Json, str]:
    """(rows by name, where they come from)."""
    found = read(f"bench/{name}.json")
    machine = found["ceilings"]
    origin = (
        f"{machine['cores']} cores, {machine['dtype']}, rollouts by {machine['rollout']}, JAX {machine['jax']}, "
        f"revision `{machine['git_revision'][:7]}`; ceilings of {machine['flops_per_s'] / 1e9:.0f} GFLOP/s and "
        f"{machine['bytes_per_s'] / 1e9:.1f} GB/s"
    )
    return {row["name"]: row for row in found["rows"]}, origin


def rollouts() -> str:
    (rows, origin), (by_xla, other) = bench("cpu"), bench("cpu-xla")
    lines = []
    for songs in TARGETS:
        name = f"rollout/published/batch={songs}"
        row = rows[name]
        counted = f"{row['flops'] / 1e9:,.4g} GFLOP, {row['bytes'] / 1e9:.3g} GB"
        speed = [number(row["frames_per_s"], 0), f"{row['ceiling_share']:.0%}", number(row["times_public"], 1)]
        lines.append([str(songs), counted, row["bound"], *speed, number(by_xla[name]["frames_per_s"], 0)])
    head = ["songs", "counted", "binds", "frames/s", "share", "times the public sampler", "by XLA alone, frames/s"]
    return table(head, lines) + f"\n{origin}. By XLA alone: {other}.\n"


def small_rollouts() -> str:
    rows, origin = bench("cpu")
    lines = []
    for songs, target in TARGETS.items():
        row = rows[f"rollout/yardstick/batch={songs}"]
        lines.append([str(songs), number(row["frames_per_s"], 0), number(row["times_public"], 1), str(target)])
    return table(["songs", "frames/s", "times the public sampler", "target"], lines) + f"\n{origin}.\n"


def iterations() -> str:
    rows, origin = bench("cpu")
    lines = []
    for phase in PHASES:
        small, published = rows[f"iteration/small/{phase}"], rows[f"iteration/published/batch=8/{phase}"]
        shares = [f"{row['ceiling_share']:.0%}" for row in (small, published)]
        times = [number(small["median_ms"], 0), number(published["median_ms"] / 1e3, 1)]
        lines.append([gate(phase), times[0], shares[0], times[1], shares[1], f"{published['peak_bytes'] / 1e9:.1f} GB"])
    head = ["", "`small`, ms", "share", "published, 8 songs, s", "share", "peak memory"]
    return table(head, lines) + f"\n{origin}.\n"


def bands() -> str:
    names = {
        "tune book": "the tune book's own chords",
        "with_the_adversary": "with the adversary (λ = 1)",
        "rewards_alone": "rewards alone (λ = 0)",
        "supervised": "supervised (MLE)",
    }
    head = (
        "policy", "note-in-chord", "by chance", "changes on a beat", "longest chord, bars", "fewest chords at T = 0",
    )  # fmt: skip
    found = read("jam/figures.json")["systems"]
    rows = (
        (
            text,
            *(number(found[name][metric], 2) for metric in ("note_in_chord", "note_in_chord_chance")),
            f"{100 * found[name]['changes_on_beat']:.0f} %",
            number(found[name]["longest_chord_bars"], 1),
            str(found[name]["fewest_chords"]),
        )
        for name, text in names.items()
    )
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "bands": bands,
    "front-page": front_page,
    "ablation": lambda: by_dataset(read("ablation/results.json"), ABLATION, with_interval),
    "ablation-differences": differences,
    "ablation-partner": partner,
    "ablation-exploration": lambda: arms("exploration"),
    "ablation-steps": lambda: while_learning("exploration", (50, 100, 150, 200, 225, 250, 300, 350, 400)),
    "ablation-distance": lambda: at_equal_distance("exploration", (0.3, 0.4, 0.5, 0.6, 0.7)),
    "ablation-repaired": lambda: while_learning("repaired", (50, 100, 150, 200, 250, 300, 350, 400)),
    "ablation-open-gate": lambda: while_learning("open_gate", (50, 100, 150, 200, 250, 300)),
    "ablation-cures": lambda: arms("cures"),
    "ablation-cures-differences": lambda: against_baseline("cures"),
    "ablation-adversary": lambda: arms("adversary"),
    "ablation-adversary-differences": lambda: against_baseline("adversary"),
    "ablation-second": lambda: arms("second"),
    "ablation-second-differences": lambda: paired("second", "data set", lambda row: str(row["dataset"])),
    "ablation-second-distance": lambda: at_equal_distance("second", (0.5, 0.6, 0.7)),
    "turns": lambda: by_dataset(read("turn_taking/results.json"), TURNS, with_interval, "excerpts"),
    "turns-discriminative": lambda: by_dataset(
        read("turn_taking/results-discriminative.json"), TURNS, with_interval, "excerpts"
    ),
    "small": lambda: by_dataset(read("small/results.json"), SMALL, with_range),
    "plans": lambda: plans(("h100-1", "h100-8", "v5e-1x1", "v5e-2x4", "v5e-16x16")),
    "plan-pod": lambda: one_plan("v5e-16x16"),
    "plan-members": lambda: one_plan("v5e-16x16-members-30"),
    "plan-members-slices": lambda: one_plan("v5e-16x16-x2-members-30"),
    "bench-rollout": rollouts,
    "bench-yardstick": small_rollouts,
    "bench-iteration": iterations,
}


def pages() -> list[Path]:
    """Those that may hold tables."""
    return [path for path in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))) if path.exists()]


def made(name: str, now: str) -> str:
    """What the block is to hold, given what it holds."""
    if name not in TABLES:
        raise SystemExit(f"docs/tables.py has no table '{name}' (there are {', '.join(TABLES)})")
    try:
        return TABLES[name]()
    except FileNotFoundError:
        return now if now.startswith(OLDER) else f"{OLDER}\n{now}"


def rewritten(page: str) -> str:
    """The page with every block made anew."""
    return BLOCK.sub(lambda block: block["begin"] + made(block["name"], block["text"]), page)


def stale(page: str) -> list[str]:
    """Names of the blocks that are not what the JSON gives. Exits where a block has no end."""
    blocks = list(BLOCK.finditer(page))
    if not len(blocks) == page.count("<!-- table:") == page.count("<!-- end -->"):
        raise SystemExit("a table has no '<!-- end -->', or an end no '<!-- table: NAME -->'")
    return [block["name"] for block in blocks if made(block["name"], block["text"]) != block["text"]]


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(f"usage: python {sys.argv[0]} [--check]", file=sys.stderr)
        return 2
    found = False
    for path in pages():
        page = path.read_text(encoding="utf-8")
        for name in stale(page):
            found = True
            print(f"{path.name}: the table '{name}' " + ("is not what its JSON gives" if arguments else "is made anew"))
        if not arguments:
            path.write_text(rewritten(page), encoding="utf-8")
    if found and arguments:
        print("run: python docs/tables.py", file=sys.stderr)
    return int(found and bool(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
