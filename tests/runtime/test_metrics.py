import json

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from gapt_jax.errors import UserError
from gapt_jax.runtime.metrics import MetricLog, read_metrics


def _write(folder, stage, steps, resume_step=None, value=0.0):
    log = MetricLog(folder, resume_step)
    for step in steps:
        log.write(stage, step, {"loss": value})
    log.close()


def _steps(folder, stage):
    return [(row["step"], row["loss"]) for row in read_metrics(folder / "metrics.jsonl") if row["stage"] == stage]


def _events(folder):
    """(step, loss) of every event that TensorBoard would show."""
    shown = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == SessionLog.START:
                shown = [(step, value) for step, value in shown if step < event.step]
            shown += [(event.step, value.simple_value) for value in event.summary.value]
    return shown


def test_rows_are_one_json_object_per_line_and_not_finite_is_null(tmp_path):
    log = MetricLog(tmp_path / "run", None)
    values = {"loss": np.float32(0.5), "kl": float("nan"), "x": float("inf"), "y": -np.inf}
    log.write("gapt", np.int32(3), values)
    log.close()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    row = {"stage": "gapt", "step": 3, "loss": 0.5, "kl": None, "x": None, "y": None}
    assert text.endswith("\n") and json.loads(text) == row
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == [row]


def test_resume_cuts_the_rows_after_the_checkpoint_of_that_stage_only(tmp_path):
    _write(tmp_path, "mle", range(1, 6))
    _write(tmp_path, "gapt", range(1, 8))
    _write(tmp_path, "gapt", range(5, 10), resume_step=4, value=1.0)
    assert _steps(tmp_path, "mle") == [(step, 0.0) for step in range(1, 6)]
    expected = [(step, 0.0) for step in range(1, 5)] + [(step, 1.0) for step in range(5, 10)]
    assert _steps(tmp_path, "gapt") == expected
    assert _events(tmp_path / "tensorboard" / "gapt") == expected


def test_a_stage_that_begins_anew_has_no_old_rows(tmp_path):
    _write(tmp_path, "mle", range(1, 6))
    _write(tmp_path, "mle", range(1, 3), value=1.0)
    assert _steps(tmp_path, "mle") == [(1, 1.0), (2, 1.0)]
    assert _events(tmp_path / "tensorboard" / "mle") == [(1, 1.0), (2, 1.0)]


def test_two_logs_open_at_once_lose_nothing(tmp_path):
    first, second = MetricLog(tmp_path, None), MetricLog(tmp_path, None)
    first.write("mle", 1, {"loss": 0})
    second.write("gapt", 1, {"loss": 0})
    first.write("mle", 2, {"loss": 0})
    assert _steps(tmp_path, "mle") == [(1, 0.0), (2, 0.0)]
    assert _steps(tmp_path, "gapt") == [(1, 0.0)]


def test_half_a_line_at_the_end_is_dropped(tmp_path):
    _write(tmp_path, "mle", range(1, 4))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert _steps(tmp_path, "mle") == [(1, 0.0), (2, 0.0)]
    _write(tmp_path, "mle", [3], resume_step=2)
    assert _steps(tmp_path, "mle") == [(1, 0.0), (2, 0.0), (3, 0.0)]


def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for bad in ("{", "[]", '{"step": 1}', "null"):
        path.write_text('{"stage": "mle", "step": 1}\n' + bad + '\n{"stage": "mle", "step": 3}\n')
        with pytest.raises(UserError, match="line 2"):
            read_metrics(path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl does not exist"):
        read_metrics(tmp_path / "metrics.jsonl")
