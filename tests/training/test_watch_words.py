"""What a line of progress shows of a step."""

from gapt_jax.runtime.metrics import MetricLog
from gapt_jax.training.stages import SHOWN
from gapt_jax.training.watch import Watch


def test_values_of_the_validation_are_marked_beside_those_of_the_training(tmp_path):
    class Line:
        def update(self, step, **values):
            self.shown = values

    line = Line()
    watch = Watch("policy", MetricLog(tmp_path, resume_step=None), line, SHOWN, 3)
    watch.push(1, {"loss": 1.0, "accuracy": 0.5, "valid/loss": 2.0, "valid/accuracy": 0.25})
    watch.flush()
    assert line.shown == {"loss": 1.0, "accuracy": 0.5, "valid loss": 2.0, "valid accuracy": 0.25}
