"""Figures of `gapt bench` against hand counts; programs that must not grow or compile again unnoticed."""

import dataclasses
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import learner
from gapt_jax.algorithm.state import ADVERSARIAL, hyperparameters
from gapt_jax.benchmark import bench, cases, ceilings, measure, public, serve_cases
from gapt_jax.benchmark.cases import Iteration, Size
from gapt_jax.benchmark.measure import Case, Ceilings, Program
from gapt_jax.commands import bench as bench_command
from gapt_jax.commands import bench_data
from gapt_jax.experiments.gapt import gapt
from gapt_jax.experiments.smoke import smoke
from gapt_jax.experiments.yardstick import yardstick
from gapt_jax.export import onnx
from gapt_jax.overrides import override
from gapt_jax.runtime import cost
from gapt_jax.runtime.cost import Cost
from tests.toy import gapt as command

M, K, N = 8, 16, 4
CEILINGS = Ceilings(flops=1e9, bandwidth=1e8)
KINDS = ("contrastive", "rhythm_contrastive", "rhythm_discriminative")
TINY = override(
    smoke(),
    [
        *(f"models.{network}.depth=1" for network in cases.NETWORKS),
        *(f"algorithm.rewards.{kind}=0" for kind in KINDS),
        *("data.max_frames=8", "algorithm.batch_size=8", "algorithm.minibatch_size=4"),
        *("algorithm.discriminator.minibatch_size=4", "algorithm.discriminator.steps_per_update=2"),
        *("evaluation.batch_size=8", "pretrain.held_out=0"),
    ],
)
PHASES = ("rollout", "judge", "estimate", "improve_policy", "improve_discriminator")


class Counted:
    """A program that is traced and counted, never compiled."""

    compile_seconds, xla_flops, peak_bytes = 0.0, 0.0, 0

    def __init__(self, traced, devices=1):
        self.cost = cost.of(traced.jaxpr)

    def __call__(self, *arguments):
        raise AssertionError("it is not compiled")


def tiny(**changes) -> Size:
    return Size.of("small", dataclasses.replace(TINY, **changes), 2, "float32", None)


@pytest.fixture(scope="module")
def iteration() -> Iteration:
    return Iteration(tiny())


def test_a_program_counts_its_matmul():
    x, w = jnp.ones((M, K)), jnp.ones((K, N))
    program = Program(jax.jit(jnp.dot).trace(x, w))
    assert program.cost == Cost(flops=2 * M * K * N, bytes=4 * (M * K + K * N + M * N))
    assert program.xla_flops == pytest.approx(2 * M * K * N)
    assert program.peak_bytes == 4 * (M * K + K * N + M * N)  # nothing temporary
    assert program(x, w).tolist() == jnp.full((M, N), K).tolist()


def test_peak_memory_counts_a_donated_array_once():
    program = Program(jax.jit(lambda x: x + 1, donate_argnums=0).trace(jnp.zeros(1000)))
    assert program.peak_bytes == 4000


def of_cost(**work) -> dict:
    program = Counted(jax.jit(lambda x: x).trace(0.0))
    program.cost = Cost(**work)
    return measure.row(Case("a", lambda: None, [program], frames=30), [0.1, 0.5, 0.2, 0.4, 0.3], CEILINGS)


def test_share_of_the_ceiling_that_binds():
    found = of_cost(flops=6e7, bytes=1e6)  # 0.06 s of matmuls, 0.01 s of memory, in 0.3 s
    assert (found["ceiling_share"], found["bound"]) == (pytest.approx(0.2), "matmul")
    assert (found["flops_per_s"], found["bytes_per_s"]) == (pytest.approx(2e8), pytest.approx(1e6 / 0.3))
    assert (found["frames_per_s"], found["tokens_per_s"]) == (pytest.approx(100), pytest.approx(200))
    assert (found["median_ms"], found["min_ms"]) == (300, 100)
    assert found["quartiles_ms"] == [200, 400]
    found = of_cost(flops=6e7, bytes=9e6)
    assert (found["ceiling_share"], found["bound"]) == (pytest.approx(0.3), "memory")


def test_work_of_a_row_is_that_of_all_its_programs():
    program = Program(jax.jit(jnp.dot).trace(jnp.ones((M, K)), jnp.ones((K, N))))
    found = measure.row(Case("a", lambda: None, [program] * 3), [0.1], CEILINGS)
    assert found["flops"] == 3 * 2 * M * K * N
    assert found["peak_bytes"] == program.peak_bytes


def test_without_a_program_only_the_time_is_told():
    found = measure.row(Case("a", lambda: None), [0.1], CEILINGS)
    assert found["median_ms"] == pytest.approx(100)
    assert all(found[name] is None for name in (*measure.COUNTED, "frames_per_s", "tokens_per_s"))


def test_runs_take_turns_and_the_first_turn_does_not_count():
    order: list[str] = []
    counts: list[int] = []

    def first():
        if not order:
            time.sleep(0.2)
        order.append("a")

    found = measure.in_turns({"a": first, "b": lambda: order.append("b")}, 3, counts.append)
    assert order == ["a", "b"] * 4
    assert [len(seconds) for seconds in found.values()] == [3, 3]
    assert max(found["a"]) < 0.1
    assert counts == list(range(1, 9))


def test_a_donated_state_is_fed_back():
    program = Program(jax.jit(lambda x, y: (x + y, x), donate_argnums=0).trace(jnp.zeros(()), jnp.ones(())))
    run = measure.fed_back(program, jnp.zeros(()), jnp.ones(()))
    assert [float(run()[0]) for _ in range(3)] == [1, 2, 3]


def test_growth_is_the_ratio_to_the_row_it_came_from():
    rows = [{"name": "a", "median_ms": 2.0, "grown_from": None}, {"name": "b", "median_ms": 8.0, "grown_from": "a"}]
    base, grown = measure.with_growth(rows)
    assert (base["time_ratio"], base["exponent"]) == (None, None)
    assert (grown["time_ratio"], grown["exponent"]) == (4, 2)


def test_ceilings_are_measured():
    found = ceilings.measure(1, sides=(64, 128), passes=2, copied=2**20)
    assert found.flops > 1e6 and found.bandwidth > 1e6


def written(**medians: float) -> dict:
    machine = {"device": "cpu", "devices": 1, "cores": 2, "dtype": "float32", "rollout": "XLA"}
    machine |= {"flops_per_s": 1e11, "bytes_per_s": 4e10}
    return {"ceilings": machine, "rows": [{"name": name, "median_ms": ms} for name, ms in medians.items()]}


def test_comparison_of_rows_in_both():
    found = bench_command.compare(written(a=30.0, b=1.0), written(a=10.0, c=1.0))
    assert found == {"rows": [{"name": "a", "earlier_ms": 30, "median_ms": 10, "ratio": 3}], "differences": []}


def test_comparison_says_what_differs():
    other, slower, same = written(), written(), written()
    other["ceilings"]["device"] = "H100"
    slower["ceilings"]["bytes_per_s"] /= 1.3
    same["ceilings"]["bytes_per_s"] /= 1.2
    assert bench_command.compare(other, written())["differences"] == ["device H100, now cpu"]
    assert bench_command.compare(written(), slower)["differences"] == ["bytes_per_s 4e+10, now 3.08e+10"]
    assert bench_command.compare(written(), same)["differences"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "rolout"], "did you mean 'rollout'"),
        (["--size", "small,huge"], "--size has no 'huge' (there are small, published, yardstick)"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--suite", "growth", "--size", "published"], "growth is measured at the small size"),
        (["--out", "."], "is a folder"),
        (["--compare", "absent.json"], "make it with 'gapt bench --out FILE'"),
        (["--compare", "text.json"], "is damaged"),
        (["--compare", "rows.json"], "is not a benchmark"),
        (["--compare", "zero.json"], "is not a benchmark"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "bench", pytest.fail)
    (tmp_path / "text.json").write_text("no JSON")
    (tmp_path / "rows.json").write_text('{"ceilings": {}, "rows": 3}')
    (tmp_path / "zero.json").write_text(json.dumps(written(a=0)))
    assert command("bench", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


def test_command_writes_one_object_and_compares(tmp_path, monkeypatch, capsys):
    """The real thing, on two tiny rollouts."""
    monkeypatch.setattr(cases, "ROLLOUT_BATCHES", (1, 2))
    monkeypatch.setattr(ceilings, "measure", lambda repeats: CEILINGS)
    monkeypatch.setattr("gapt_jax.runtime.devices.set_up", lambda: None)
    monkeypatch.setattr("gapt_jax.experiments.load", lambda name: TINY)
    out = tmp_path / "folder" / "bench.json"
    arguments = ("bench", "--suite", "rollout", "--size", "small", "--repeats", "2", "--out", str(out))
    assert command(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == found
    assert [row["name"] for row in found["rows"]] == ["rollout/small/batch=1", "rollout/small/batch=2"]
    assert found["ceilings"]["flops_per_s"] == 1e9 and found["ceilings"]["dtype"] == "float32"
    one, two = found["rows"]
    assert {"note", "quartiles_ms", "bound", "ceiling_share", "compile_s", "peak_bytes", "xla_flops", *one} == {*two}
    assert two["flops"] == 2 * one["flops"] > 0
    assert one["repeats"] == 2 and one["frames_per_s"] == pytest.approx(8 / (one["median_ms"] / 1e3))
    assert all(one[name] > 0 for name in ("ceiling_share", "compile_s", "peak_bytes"))
    assert [path.name for path in out.parent.iterdir()] == ["bench.json"]

    one["median_ms"], found["ceilings"]["cores"] = 1e9, 1000
    out.write_text(json.dumps(found))
    assert command(*arguments[:-2], "--compare", str(out)) == 0
    shown = capsys.readouterr().out
    assert "earlier / now" in shown and "rollout/small/batch=2" in shown
    assert "warning: another machine, or a busy one: cores 1000" in shown


def test_what_was_measured_is_kept_when_it_is_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cases, "ROLLOUT_BATCHES", (1, 2))
    monkeypatch.setattr(ceilings, "measure", lambda repeats: CEILINGS)
    monkeypatch.setattr("gapt_jax.runtime.devices.set_up", lambda: None)
    monkeypatch.setattr("gapt_jax.experiments.load", lambda name: TINY)
    real, turns = bench._after_turn, []

    def stopped_in_the_second_turn(*arguments):
        real(*arguments)
        turns.append(len(next(iter(arguments[-1].values()))))
        if turns[-1] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_after_turn", stopped_in_the_second_turn)
    out = tmp_path / "bench.json"
    arguments = ("bench", "--suite", "rollout,serve", "--quick", "--repeats", "4", "--out", str(out))
    assert command(*arguments) == 130
    assert turns == [0, 1, 2]
    rows = bench_command.read_bench(out)["rows"]
    assert [(row["name"], row["repeats"]) for row in rows] == [(f"rollout/small/batch={n}", 2) for n in (1, 2)]
    shown = capsys.readouterr().out
    assert shown.index("takes roughly") < shown.index("stopped; these rows") < shown.index("rollout/small/batch=2")


def test_the_estimate_grows_with_what_is_asked_for():
    timed = [suite for suite in bench_command.SUITES if suite != "live"]
    assert bench_command.estimate(timed, ["small", "published"], 5) == 40 * 60
    assert bench_command.estimate(timed, ["small"], 2) == 2.5 * 60
    assert bench_command.estimate(["rollout", "live"], ["small"], 5) == pytest.approx(60 * (5 / 7 + 2))


def test_lines_of_xla_about_slow_devices_are_kept_out(capfd):
    slow = "E0000 7 rendezvous.cc:100] This thread has been waiting for `all reduce` for 20 s and may be stuck"
    with bench_command.without_slow_lines():
        os.write(2, f"{slow}\nE0000 something else\n".encode())
    assert capfd.readouterr().err == "E0000 something else\n"


def test_the_command_knows_the_suites_and_sizes_that_there_are():
    assert {*bench.ALL_SUITES, "data", "live"} == set(bench_command.SUITES)
    assert bench.QUALITIES.keys() == bench_command.EXPERIMENTS.keys()


def test_fewer_songs_have_the_same_work_each():
    size = Size.of("published", gapt(), 2, "float32", 8)
    assert (size.algorithm.batch_size, size.algorithm.minibatch_size) == (8, 8)
    adversary = size.algorithm.discriminator
    assert (adversary.steps_per_update, adversary.minibatch_size) == (1, 8)  # 8 steps of 48 pairs for 384 songs
    assert size.prefix(384) == "published/batch=8"
    assert Size.of("published", gapt(), 2, "float32", None).prefix(384) == "published"


@pytest.mark.parametrize(
    ("suite", "names"),
    [
        ("train", ["policy", "anchor", "contrastive", "discriminative"]),
        ("evaluation", ["play", "embed", "divergence", "proxy", "measure"]),
    ],
)
def test_rows_of_a_suite(suite, names, monkeypatch):
    monkeypatch.setattr(cases, "Program", Counted)
    found = list(cases.SUITES[suite](tiny()))
    assert [case.name for case in found] == [f"{suite}/small/{name}" for name in names]
    assert all(program.cost.flops > 0 for case in found for program in case.programs)


def test_rows_of_the_data_suite(monkeypatch):
    monkeypatch.setattr(bench_data, "SONGS", 40)
    *imports, loader = bench_data.data_cases([tiny()])
    assert [case.name for case in imports] == [f"data/import/{name}" for name in ("record", "midi", "abc")]
    assert [len(case.run()) for case in imports] == [40, 40, 40]
    assert loader.name == "data/small/loader" and loader.run().context.shape == (8, 8)


def test_rows_of_the_live_suite(monkeypatch):
    live_cases = pytest.importorskip("gapt_jax.benchmark.live_cases", reason="the extra 'live' is not installed")
    for name, value in {"TEMPOS": (240,), "LOOKAHEADS": (2, 30), "TICKS": 8}.items():
        monkeypatch.setattr(live_cases, name, value)
    told = []
    (row,) = live_cases.live_rows([live_cases.random_model(tiny())], 3, lambda *done: told.append(done))
    assert row["name"] == "live/small/ahead=2/bpm=240" and row["repeats"] == 8 and told == [(1, 2), (2, 2)]
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] and row["budget_ms"] == 62.5
    assert row.keys() >= measure.row(Case("x", lambda: None), [1.0], Ceilings(1, 1)).keys()


@pytest.mark.onnx
def test_rows_of_the_serve_suite(monkeypatch):
    monkeypatch.setattr(serve_cases, "BATCHES", (1, 3))
    found = {case.name: case for case in serve_cases.serve_cases(tiny())}
    backends = ("engine", "jax", "onnx") if onnx.is_installed() else ("engine", "jax")
    assert list(found) == [f"serve/small/{name}/batch={batch}" for batch in (1, 3) for name in backends]
    for batch in (1, 3):
        expected = found[f"serve/small/engine/batch={batch}"].run()
        assert expected.shape == (batch, tiny().vocabulary.size)
        for name in backends[1:]:
            np.testing.assert_allclose(found[f"serve/small/{name}/batch={batch}"].run(), expected, atol=1e-4)


def test_the_margin_of_the_loader():
    times = {"data/small/loader": 2.0, "iteration/small/all": 500.0, "data/published/batch=8/loader": 1.0}
    (found,) = bench_command.margins([{"name": name, "median_ms": ms} for name, ms in times.items()])
    assert found == {"loader": "data/small/loader", "iteration": "iteration/small/all", "times": 250}


def test_work_grows_with_what_is_doubled(monkeypatch):
    monkeypatch.setattr(cases, "Program", Counted)
    monkeypatch.setattr(cases, "NETWORKS", ("policy",))
    real = cases.learner_inputs

    def hollow(size: Size):
        shapes = jax.eval_shape(lambda: real(size))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

    monkeypatch.setattr(cases, "learner_inputs", hollow)
    flops = {case.name.split("/")[-1]: case.programs[0].cost.flops for case in cases.growth_cases(tiny())}
    ratios = {name: value / flops["base"] for name, value in flops.items()}
    assert ratios["batch"] == ratios["members"] == 2
    assert 1.5 < ratios["frames"] < 3
    assert 1 < ratios["depth"] < ratios["width"] < 4


def test_phases_go_on_from_one_state_with_the_gate_open(iteration):
    assert tuple(iteration.programs) == PHASES
    step, updates = int(iteration.state.step), int(iteration.state.discriminator_optimizer.updates)
    for _ in range(2):
        jax.block_until_ready(iteration.alone("improve_policy"))
    assert int(iteration.state.step) == step
    for number in (1, 2):
        iteration.whole()
        assert int(iteration.state.step) == step + number
        assert int(iteration.state.discriminator_optimizer.updates) == updates + 2 * number  # steps_per_update


def test_lambda_seeds_and_steps_compile_nothing():
    compiled = []

    def heard(event: str, duration: float, **_) -> None:
        compiled.extend([event] if event == "/jax/core/compile/backend_compile_duration" else [])

    size = tiny()
    state, frozen, batch = cases.learner_inputs(size)

    def started(seed: int, weight: float):
        hyper = hyperparameters(size.algorithm)
        weights = hyper.reward_weights | {ADVERSARIAL: jnp.float32(weight)}
        copy = jax.tree.map(jnp.copy, state)
        hyper = dataclasses.replace(hyper, reward_weights=weights)
        return dataclasses.replace(copy, key=jax.random.key_data(jax.random.key(seed)), hyper=hyper)

    starts = [started(0, 1.0), started(1, 0.0), started(2, 0.5)]
    jax.block_until_ready(learner.iteration(size.spec, starts[0], frozen, batch))
    sizes = {name: getattr(learner, name)._cache_size() for name in PHASES}
    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        for start in starts[1:]:
            for _ in range(3):
                start, _ = learner.iteration(size.spec, start, frozen, batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
    assert {name: getattr(learner, name)._cache_size() for name in PHASES} == sizes
    assert compiled == []


# Of one iteration of `smoke` with a vocabulary of 11 interval sets, in MFLOP of matmuls, and MB of memory.
SMOKE = {
    "rollout": (413, 155),
    "judge": (566, 89),
    "estimate": (1174, 192),
    "improve_policy": (2220, 348),
    "improve_discriminator": (8000, 1253),
}


def test_work_of_smoke_does_not_grow_unnoticed(monkeypatch):
    """The two passes of a frame over two tokens, by hand: 4 d² + 3 · 4 d² a layer, attention over 65 places, the head.
    The other phases are pinned: who makes them grow has to say so here."""
    size = Size.of("smoke", smoke(), 11, "float32", None)
    inputs = jax.eval_shape(lambda: cases.learner_inputs(size))
    found = {name: cost.of(traced.jaxpr) for name, traced in cost.traced(learner.iteration, size.spec, *inputs).items()}
    songs, frames, dim, layers = 64, 32, 32, 2
    token, pair = 2 * 16 * dim**2, 2 * 2 * dim  # of a token, and of its attention to another one
    head = 2 * dim * size.vocabulary.size
    blocks = 2 * frames * (token + (2 * frames + 1) * pair) + token + pair  # the first sees itself alone
    by_hand = songs * (layers * blocks + (frames + 1) * head)
    assert found["rollout"].flops == by_hand
    for name, (mflop, megabytes) in SMOKE.items():
        assert found[name].flops <= 1.02e6 * mflop, name
        assert found[name].bytes <= 1.02e6 * megabytes, name
        assert found[name].unknown_loops == 0, name


def test_rows_with_a_public_figure_are_set_beside_it():
    assert public.times_public({"name": "rollout/published/batch=8", "frames_per_s": 550.0}) == 10
    assert public.times_public({"name": "rollout/small/batch=8", "frames_per_s": 550.0}) is None
    size = Size.of(
        "yardstick", yardstick(), bench.QUALITIES["yardstick"], "float32", None, bench.ROLLOUT_FRAMES["yardstick"]
    )
    assert (size.vocabulary.size, size.algorithm.batch_size, size.frames, size.rollout_frames) == (6164, 32, 64, 256)
    names = {f"rollout/yardstick/batch={songs}" for songs in cases.ROLLOUT_BATCHES} | {"iteration/yardstick/all"}
    assert {name for name in public.FRAMES_PER_S if "yardstick" in name} == names
