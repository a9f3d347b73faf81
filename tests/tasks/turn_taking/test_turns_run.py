"""A second domain goes through `gapt ablate`, λ = 0 and λ = 1, its report and `gapt listen`, on simulated data."""

import json

import pytest

from gapt_jax.errors import UserError
from gapt_jax.experiments.turns import turns
from gapt_jax.overrides import override
from gapt_jax.tasks.accompaniment.task import accompaniment
from gapt_jax.tasks.turn_taking.task import TurnTaking
from tests.toy import NETWORKS, gapt

STAGES = ("policy", "anchor", "contrastive")
TOY = [
    *NETWORKS, *(f"pretrain.{stage}.{key}" for stage in STAGES for key in ("steps=8", "batch_size=8")),
    "data.max_frames=32", "algorithm.steps=2", "algorithm.batch_size=8", "algorithm.minibatch_size=8",
    "algorithm.rewards.discriminative=0", "algorithm.discriminator.minibatch_size=8",
    "algorithm.discriminator.steps_per_update=2", "evaluation.songs=16", "evaluation.batch_size=16",
    "evaluation.every=2", "evaluation.monitor_songs=16", "evaluation.post_hoc_steps=0", "evaluation.same_context=1",
    "runtime.checkpoint_every=2", "runtime.mesh.data=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished ablation of λ = 0 and λ = 1."""
    folder = tmp_path_factory.mktemp("turns") / "study"
    settings = [f"--set={setting}" for setting in TOY]
    assert gapt("ablate", "turns_smoke", "--lambdas", "0,1", "--seeds", "1", "--workdir", str(folder), *settings) == 0
    return folder


def test_a_run_ends_with_the_command_that_plays_its_policy(study, capsys):
    settings = [f"--set={setting}" for setting in TOY]
    run = study.parent / "alone"  # beside the stages of the study
    assert gapt("run", "turns_smoke", "--workdir", str(run), *settings) == 0
    assert f"next: gapt listen {run} --rttm FILE, or gapt report" in "".join(capsys.readouterr())


def test_it_trains_is_evaluated_and_reported(study):
    for weight in (0, 1):
        member = study / f"gapt_lambda={weight}-seed10"
        found = json.loads((member / "evaluation.json").read_text())
        systems = {name: sets["all/test"] for name, sets in found["systems"].items()}
        assert systems.keys() == {"data", "mle", f"gapt_lambda={weight}"}
        assert systems["data"]["js_transfer"]["mean"] == 0 == systems["mle"]["invalid_share"]["mean"]
        assert systems["data"]["clear_speech"]["mean"] > systems["data"]["clear_speech_chance"]["mean"]
        assert systems["mle"]["same_context_vendi_independent"]["mean"] > 1
        log = [json.loads(line) for line in (member / "metrics.jsonl").read_text().splitlines()]
        terms = {"chatter", "invalid", "monologue", "mute", "contrastive", "adversarial"}
        assert {f"reward/{term}" for term in terms} | {"valid/clear_speech", "valid/js_turns"} <= set(log[-1])
        assert log[-1]["ratio_deviation/largest"] < 1e-3
    page = (study / "report.html").read_text()
    assert "How the floor passes" in page and "13% against the MLE" in page and "16 conversations" in page
    assert {"conversation_1.png", "floor_transfers.png"} <= {path.name for path in study.iterdir()}
    assert "melody" not in page.lower() and "chord" not in page.lower()


def test_it_listens_to_a_recording(study, tmp_path, capsys):
    recording, out = tmp_path / "meeting.rttm", tmp_path / "said.rttm"
    lines = [("ann", 0.1, 2.0), ("bob", 2.2, 0.5), ("ann", 3.0, 2.5)]
    recording.write_text("".join(f"SPEAKER m1 1 {s} {n} <NA> <NA> {who} <NA> <NA>\n" for who, s, n in lines))
    command = ["listen", str(study / "gapt_lambda=1-seed10"), "--rttm", str(recording), "--out", str(out)]
    assert gapt(*command, "--instead-of", "bob", "--seconds", "4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["frames"] == 20 and found["budget_ms"] == 200 and out.exists()
    for more, words in (
        (["--instead-of", "eve"], "'eve' does not speak in m1: ann, bob do"),
        (["--recording", "m2"], "no recording 'm2'"),
        (["--commit-frames", "2"], "must not be above"),
        (["--seconds", "0"], "must be above 0"),
    ):
        assert gapt(*command, *more) == 2
        assert words in capsys.readouterr().err


def test_commands_for_music_refuse_it():
    with pytest.raises(UserError, match="for chords and melodies"):
        accompaniment(TurnTaking())


def test_the_settings_of_turns_hold_together():
    experiment = override(turns(), ["algorithm.rewards.mute=0"])
    assert experiment.task == "turn_taking" and experiment.data.max_frames == 128
