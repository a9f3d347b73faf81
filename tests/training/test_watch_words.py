"""What a line of progress shows of a step."""

from gapt_jax.training.stages import SHOWN
from gapt_jax.training.watch import word


def test_values_of_the_validation_are_marked_beside_those_of_the_training():
    assert [word(name) for name in SHOWN] == ["loss", "accuracy", "valid loss", "valid accuracy"]
