"""What Prometheus is told while training runs."""

import socket
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gapt_jax.commands.main import main
from gapt_jax.errors import UserError
from gapt_jax.runtime import chips, endpoint, status
from gapt_jax.runtime.account import Account
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.health import AlarmedLog, Health
from gapt_jax.runtime.status import Status
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.training.loop import Loop, Schedule


def scraped(url: str) -> dict[str, float]:
    """Values by name and labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]).strip(): sample.value for sample in samples}


@pytest.fixture
def now(monkeypatch):
    """A state of its own in place of that of the process."""
    fresh = Status()
    for module in ("status", "endpoint", "account", "console", "health"):
        monkeypatch.setattr(f"gapt_jax.runtime.{module}.NOW", fresh)
    return fresh


@pytest.fixture
def url(now, capsys):
    with endpoint.served(("127.0.0.1", 0), Console()):
        yield capsys.readouterr().out.split()[-1]


def test_the_state_is_told(now, url):
    now.stage, now.step, now.phase = "policy", 7, "evaluation"
    now.alarms["ratio"] = 5
    assert scraped(url) == {"gapt_step policy": 7, "gapt_phase evaluation": 1, "gapt_alarm_step ratio": 5}


def test_rates_are_those_of_the_last_iterations(now, url, monkeypatch):
    seconds = [0.0, *(100.0 + 0.5 * n for n in range(21))]  # the first, which compiles, is no longer among them
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    for _ in range(21):
        now.begin_iteration()
        seconds.pop(0)
    now.begin_iteration()
    assert now.iterations_per_s == 2.0
    now.frames, now.mfu_at_one = 64, 0.1
    found = scraped(url)
    assert (found["gapt_frames_per_second"], found["gapt_mfu"]) == (128.0, 0.2)
    seconds[0] += 30.0  # an evaluation
    assert scraped(url)["gapt_frames_per_second"] == 32.0


def test_an_account_tells_what_an_iteration_is_worth(now, tmp_path, monkeypatch):
    """FLOPs of an iteration over what all devices could do in a second, where the chip is known."""
    account = Account(tmp_path, devices=4)
    account.write(frames=64, flops=3e12)
    assert (now.frames, now.mfu_at_one) == (64, None)  # nobody says what a CPU could do
    chip = SimpleNamespace(flops=1e12)
    monkeypatch.setattr(chips, "BY_DEVICE_KIND", {jax.devices()[0].device_kind: chip})
    account.write(frames=64, flops=0.0)
    assert now.mfu_at_one is None  # not counted yet
    account.write(frames=64, flops=3e12)
    assert now.mfu_at_one == 0.75


@pytest.mark.parametrize("counts", [True, False])
def test_a_loop_tells_its_step_and_phases(now, counts, tmp_path):
    seen = []
    run = SimpleNamespace(stopped=None, write=lambda step, row: None, check=dict)
    run.save = lambda *_, **__: seen.append(now.phase)

    def advance(state, batch, call):
        seen.append(now.phase)
        return call(lambda x: x + 1, state), {"loss": np.float32(0)}

    def evaluate(state):
        seen.append(now.phase)
        return {}

    def batches():
        while True:
            seen.append(now.phase)
            yield 1

    schedule = Schedule(3, lambda step: step == 3, lambda step: step == 3, shown=())
    account = {"account": Account(tmp_path, 1)} if counts else {}
    loop = Loop[int]("gapt", "post-training", schedule, [run], advance, evaluate, **account)
    assert loop.run(0, 0, batches(), Console()) == 3
    assert seen == ["input", "iterations"] * 3 + ["evaluation", "checkpoint"]
    assert (now.stage, now.step, now.phase) == ("gapt", 3, "")
    assert (now.iterations_per_s is not None) == counts


def test_an_alarm_is_told_with_its_step(now, tmp_path):
    log = AlarmedLog(tmp_path, "gapt", None, Health(Experiment()), Console())
    for step in range(1, 8):
        log.write("gapt", step, {"kl": 99.0})
    log.close()
    assert now.alarms == {"kl_budget": 5}


def test_the_endpoint_closes_with_the_run(now, capsys):
    with endpoint.served(("127.0.0.1", 0), Console()):
        url = capsys.readouterr().out.split()[-1]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.parametrize(
    ("words", "place"),
    [(["run", "smoke"], "gapt_jax.training.pipeline.run"), (["ablate", "smoke"], "gapt_jax.training.ablate.ablate")],
)
def test_commands_that_train_tell_it(words, place, now, monkeypatch, capsys, tmp_path):
    def train(*_, **__):
        now.step = 3
        raise UserError(str(scraped(capsys.readouterr().out.split()[-1])))

    monkeypatch.setattr(place, train)
    with pytest.raises(SystemExit):
        main([*words, "--workdir", str(tmp_path / "run"), "--metrics-port", "0"])
    assert "'gapt_step': 3.0" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_sentence(now):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"--metrics-port 127.0.0.1:{port} cannot be had .*: choose another"),
            endpoint.served(("127.0.0.1", port), Console()),
        ):
            pass


def test_without_the_package_one_sentence_says_so(now, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with (
        pytest.raises(UserError, match=r"needs prometheus_client: pip install -e '.*\[live\]'"),
        endpoint.served(("127.0.0.1", 0), Console()),
    ):
        pass


@pytest.mark.parametrize("text", ["x", "70000", "-1", ":9100", "a:b"])
def test_what_is_no_port_is_refused(text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "smoke", f"--metrics-port={text}"])
    assert ended.value.code == 2 and "is not a port" in capsys.readouterr().err
