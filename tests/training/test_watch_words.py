"""What a line of progress shows of a step, and what is named when a run stops."""

from gapt_jax.training.stages import SHOWN
from gapt_jax.training.watch import culprit, word


def test_values_of_the_validation_are_marked_beside_those_of_the_training():
    assert [word(name) for name in SHOWN] == ["loss", "accuracy", "valid loss", "valid accuracy"]


def test_a_gate_that_is_shut_is_no_culprit():
    values = {"discriminator/loss": float("nan"), "discriminator/is_open": 0.0, "policy_skipped": 1.0}
    assert culprit(values) == "'a gradient'"
    assert culprit(values | {"discriminator/is_open": 1.0}) == "'discriminator/loss'"
