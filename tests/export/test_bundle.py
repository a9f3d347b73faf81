"""Bundles: what is in them, that they play their own policy, and that whatever was changed is refused."""

import datetime
import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import models
from gapt_jax.algorithm.rollout import roll_out
from gapt_jax.commands import export
from gapt_jax.data_pipeline import upstream
from gapt_jax.errors import UserError
from gapt_jax.export import bundle, card, functions, onnx, verify
from gapt_jax.export.network import Playing
from gapt_jax.export.verify import Refused
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import SILENCE
from tests.export.bundles import FRAMES, VOCABULARY, random_policy, reseal, tiny
from tests.toy import gapt as command

SCRIPT = Path(verify.__file__).parent
FILES = (
    *("README.md", "config.json", "golden.safetensors", "manifest.json", "params.safetensors", "vocabulary.json"),
    *("SHA256SUMS", *(f"fn/{name}.jaxexport" for name in verify.FUNCTIONS)),
)
NEEDS_ONNX = pytest.mark.skipif(not onnx.is_installed(), reason="runs in .venv-onnx, which make test makes")


def refusal(folder: Path) -> str:
    with pytest.raises(Refused) as reason:
        verify.verify(folder)
    return str(reason.value)


def test_files_of_a_bundle(made):
    folder = made()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(FILES)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [function["name"] for function in manifest["functions"]] == list(verify.FUNCTIONS)
    commit = manifest["functions"][2]
    assert [entry["name"] for entry in commit["inputs"]][:4] == [
        *("chord", "note", "past_key_values.0.key", "past_key_values.0.value"),
    ]
    assert {entry["name"]: entry["shape"] for entry in commit["outputs"]}["logits"] == ["B", VOCABULARY.size]
    assert {entry["name"]: entry["shape"] for entry in commit["outputs"]}["present.1.key"] == [
        "B",
        2,
        16,
        1 + 2 * FRAMES,
    ]
    outputs = [entry["name"] for entry in manifest["functions"][3]["outputs"]]
    assert outputs[:2] == ["chords", "melody"] and {"present.1.value", "position"} < set(outputs)
    assert manifest["parity"]["jax"]["max_abs_logit"] < 1e-3
    assert set(manifest["latency"]) == {"device", "cores", "engine", "jax"}
    assert (folder / "fn/plan.jaxexport").stat().st_size < 200_000  # the weights are inputs


def test_verification_needs_nothing_of_this_package(made, tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['verify', {str(made())!r}]\n"
        "try:\n    runpy.run_path(sys.argv.pop(0) and SCRIPT, run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'gapt_jax']\n"
    ).replace("sys.argv.pop(0) and SCRIPT", repr(str(SCRIPT)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jax"]["argmax_agreement"] == 1


def test_every_policy_plays_itself(made):
    bundles = [verify.load(made(seed)) for seed in range(3)]
    assert len({found.manifest["weights_sha256"] for found in bundles}) == 3
    golden = [verify.read_safetensors(found.folder / "golden.safetensors")["chords"] for found in bundles]
    assert not np.array_equal(golden[0], golden[1]) and not np.array_equal(golden[1], golden[2])


def test_the_weights_of_another_policy_are_refused(made, copied):
    shutil.copy(made(1) / "params.safetensors", copied / "params.safetensors")
    reseal(copied)
    assert "is not that of its checkpoint" in refusal(copied)


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_is_refused(file, copied):
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    reason = refusal(copied)
    assert file in reason or file == "SHA256SUMS"


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_refused(file, copied):
    content = (copied / file).read_bytes()
    (copied / file).write_bytes(content[: len(content) // 2])
    refusal(copied)


def test_swapped_missing_and_foreign_files_are_refused(copied):
    one, two = copied / "fn/step.jaxexport", copied / "fn/commit_frame.jaxexport"
    step, commit = one.read_bytes(), two.read_bytes()
    one.write_bytes(commit)
    two.write_bytes(step)
    assert "holds what belongs into fn/step.jaxexport" in refusal(copied)
    one.write_bytes(step)
    two.write_bytes(commit)
    (copied / "fn/extra.py").write_text("print('hello')")
    assert "fn/extra.py is in no list of the bundle" in refusal(copied)
    (copied / "fn/extra.py").unlink()
    one.unlink()
    assert "fn/step.jaxexport is missing" in refusal(copied)


def test_functions_that_changed_places_with_their_hashes_are_refused(copied):
    one, two = copied / "fn/step.jaxexport", copied / "fn/commit_frame.jaxexport"
    step = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(step)
    reseal(copied)
    assert "does not take and give what the manifest says" in refusal(copied)


def test_an_expired_bundle_is_refused_and_refreshed(copied):
    reseal(copied, expires="2026-01-01")
    assert "expired on 2026-01-01: rebuild them with 'gapt export refresh" in refusal(copied)
    before = (copied / "params.safetensors").read_bytes()
    manifest = bundle.refresh(copied, Console(json_mode=False))
    assert datetime.date.fromisoformat(manifest["expires"]) > datetime.date.today()
    assert (copied / "params.safetensors").read_bytes() == before and verify.verify(copied)
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "fn/../../outside", "a\\b", ""])
def test_paths_that_lead_outside_are_refused(path, copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    functions_ = [manifest["functions"][0] | {"file": path}, *manifest["functions"][1:]]
    reseal(copied, functions=functions_)
    assert "which is outside the bundle" in refusal(copied)
    with (copied / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {path}\n")
    assert "outside the bundle" in refusal(copied)


def test_links_are_refused(copied, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(copied / "README.md", outside)
    (copied / "README.md").symlink_to(outside)
    assert "README.md is a link" in refusal(copied)


class Harmful:
    def __reduce__(self):
        return os._exit, (99,)


def test_a_pickle_in_disguise_is_refused(copied):
    (copied / "params.safetensors").write_bytes(pickle.dumps(Harmful()))
    reseal(copied)
    assert "params.safetensors is a pickle, not safetensors" in refusal(copied)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1e9, 1e9], "data_offsets": [0, 4]}}',
        b"[1]",
        b"{",
    ],
)
def test_bad_safetensors_are_refused(header, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(Refused, match="no safetensors file"):
        verify.read_safetensors(path)
    path.write_bytes(b"\xff" * 8 + header)
    with pytest.raises(Refused, match="cut off"):
        verify.read_safetensors(path)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_smaller_weights_stay_near_their_checkpoint(dtype, made):
    found = json.loads((made(0, dtype) / "manifest.json").read_text())
    assert 0 < found["parity"]["jax"]["kl_nats"] < verify.MAX_DRIFT[dtype]
    ratio = (made() / "params.safetensors").stat().st_size / (made(0, dtype) / "params.safetensors").stat().st_size
    assert ratio > {"bfloat16": 1.6, "int8": 1.5}[dtype]  # names and embeddings weigh much in so small a policy


@NEEDS_ONNX
@pytest.mark.onnx
def test_onnx_agrees_with_jax(made):
    folder = made(0, "float32", True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parity"]["onnx"]["max_abs_logit"] < 1e-4 and "onnx" in manifest["latency"]
    assert "past_key_values.0.key" in (folder / "triton/config.pbtxt").read_text()
    card = (folder / "README.md").read_text()
    assert "`onnx/commit_frame.onnx`" in card and "tags: [music, accompaniment, real-time, jax, onnx]" in card
    graph = (folder / verify.ONNX).read_bytes()
    for place in (Path(__file__).parents[2], folder, Path(sys.prefix)):
        assert str(place).encode() not in graph


def test_a_card_promises_what_is_there(made):
    assert "onnx" not in (made() / "README.md").read_text()


def test_titles():
    origin = {"experiment": "smoke", "system": "gapt_lambda=1", "adversarial_weight": 1.0}
    assert (card.title(origin), card.short_name(origin)) == ("smoke, λ = 1", "smoke-lambda1")
    origin = {"experiment": "small", "system": "gapt_lambda=0.5", "adversarial_weight": 0.5}
    assert (card.title(origin), card.short_name(origin)) == ("small, λ = 0.5", "small-lambda0.5")
    origin = {"experiment": "small", "system": "min = 2", "adversarial_weight": 1.0}
    assert (card.title(origin), card.short_name(origin)) == ("small, min = 2, λ = 1", "small-min-2")
    origin = {"experiment": "small", "system": "mle", "adversarial_weight": None}
    assert (card.title(origin), card.short_name(origin)) == ("small, supervised", "small-mle")


MANIFEST = {
    "parameters": 1000,
    "dtype": "bfloat16",
    "vocabulary_size": 9,
    "max_frames": 24,
    "frames_per_beat": 4,
    "expires": "2026-01-01",
    "origin": {"experiment": "a", "system": "mle", "adversarial_weight": None, "data_fingerprint": "f", "step": 0},
}


def test_a_card_tells_of_the_training(tmp_path):
    command_ = "gapt run jam --workdir /home/me/runs/jam --set data.songs=/home/me/songs --set seed=3"
    (tmp_path / "run.json").write_text(json.dumps({"command": command_}))
    training = export._training(tmp_path, (("pop909", 0.7), ("mine", 0.3)), "apache-2.0")
    told = card.model_card(MANIFEST, None, False, training)
    assert told.startswith('---\nlicense: "apache-2.0"\nlibrary_name: gapt-jax\n')
    terms, home = upstream.terms("pop909")
    assert f"| pop909 | 0.7 | {terms} | {home} |\n| mine | 0.3 | not known | not known |\n" in told and "MIT" in terms
    assert "\n\n    gapt run jam --workdir jam --set data.songs=songs --set seed=3\n" in told
    assert "Licence of the weights: apache-2.0." in told and "/home" not in told


def test_a_card_claims_nothing_that_is_not_known():
    told = card.model_card(MANIFEST, None, False)
    assert "## Training" not in told and "icen" not in told.replace("whose licences bind", "")
    training = card.Training((card.TrainingSet("pop909", 1, "MIT", "x"),))
    assert "Licence of the weights: not stated." in card.model_card(MANIFEST, None, False, training)


@pytest.mark.parametrize(
    ("command_", "kept"),
    [
        ("gapt run a --set b=/c/d/e", "gapt run a --set b=e"),
        ("gapt run /c/d.py:f --workdir ~/x/y/", "gapt run d.py:f --workdir y/"),
        ("gapt run a --workdir='/c/d' --set e=1/2 /f", "gapt run a --workdir='d' --set e=1/2 f"),
        ("gapt run a --workdir runs/a", "gapt run a --workdir runs/a"),
    ],
)
def test_a_command_without_the_folders_of_its_machine(command_, kept):
    assert card.without_folders(command_) == kept


def test_a_licence_is_one_line(tmp_path, capsys):
    for text in ("", " ", "a\nb", "x" * 101):
        assert command("export", str(tmp_path), "--license", text) == 2
        assert "a licence is one line" in capsys.readouterr().err


def test_onnx_where_its_packages_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "PACKAGES", ("nothing_of_this_name",))
    with pytest.raises(UserError, match="'make onnx' makes"):
        bundle.write(random_policy(), tmp_path / "out", Console(json_mode=False), with_onnx=True)
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match="or give --no-onnx"):
        onnx.write(tmp_path / "x.onnx", None, {}, tiny().models.policy, 3)


def test_flat_names_come_back():
    params = random_policy().params
    flat = functions.flatten(params)
    assert "stack.blocks.0.attention.query.kernel" in flat
    assert jax.tree.all(jax.tree.map(np.array_equal, functions.unflatten(flat), params))


def test_quantised_weights_are_within_half_a_step():
    weights = {"a.kernel": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), "b": np.ones(3, np.float32)}
    found = functions.quantised(weights)
    assert found["a.kernel"].dtype == np.int8 and found["a.kernel.scale"].shape == (4,)
    back = functions.flatten(functions.computed(found))
    assert (np.abs(back["a.kernel"] - weights["a.kernel"]) <= found["a.kernel.scale"] / 2 + 1e-7).all()
    np.testing.assert_array_equal(back["b"], weights["b"])


def played(policy, chords, notes, **options):
    """What `plan` plays after these frames."""
    found = functions.Functions(
        models.build(policy.experiment.models, VOCABULARY.size).policy, Accompaniment(VOCABULARY), 2, 1 + 2 * FRAMES
    )
    weights = functions.flatten(policy.params)
    logits, state = found.prefill(weights, chords, notes, jnp.int32(chords.shape[1]))
    count = options["given"].shape[1]
    arguments = {"uniforms": np.full((1, count, 2), 0.5, np.float32), "temperature": 1.0, "is_masked": True}
    arguments |= {"frames": count} | options
    return found.plan(
        weights,
        logits,
        chords[:, -1],
        notes[:, -1],
        arguments["given"],
        arguments["uniforms"],
        jnp.int32(arguments["frames"]),
        jnp.float32(arguments["temperature"]),
        jnp.bool_(arguments["is_masked"]),
        verify.past(state),
    )


def test_plans():
    policy = random_policy()
    golden = bundle._golden(Playing(tiny().models.policy, VOCABULARY, FRAMES), policy.params)
    chords, notes = golden["chords"][:1, :5], golden["melody"][:1, :5]
    free = np.full((1, 6), -1, np.int32)
    greedy, melody, state = played(policy, chords, notes, given=free, temperature=0, is_masked=False)
    again, _, _ = played(policy, chords, notes, given=np.asarray(greedy), temperature=0, is_masked=False)
    np.testing.assert_array_equal(greedy, again)
    fewer, heard, short = played(policy, chords, notes, given=free, frames=4, temperature=0, is_masked=False)
    np.testing.assert_array_equal(fewer[0, :4], greedy[0, :4])
    np.testing.assert_array_equal(heard[0, :3], melody[0, :3])
    assert int(short["position"]) == 1 + 2 * (5 + 4 - 1) and int(state["position"]) == 1 + 2 * (5 + 6 - 1)
    decided = free.copy()
    decided[0, :2] = SILENCE, VOCABULARY.chord_onset + 3
    kept, _, _ = played(policy, chords, notes, given=decided)
    np.testing.assert_array_equal(kept[0, :2], decided[0, :2])
    tables = VOCABULARY.tables
    masked, melody, _ = played(policy, chords, notes, given=free, temperature=3.0)
    assert all(tables.is_chord[t] or t == SILENCE for t in np.asarray(masked)[0])
    assert all(tables.is_note[t] or t == SILENCE for t in np.asarray(melody)[0, :-1])


def test_the_functions_are_the_policy_that_training_plays():
    """Rollout and `commit_frame` on the same draws: the same chords."""
    policy = random_policy()
    network = models.build(policy.experiment.models, VOCABULARY.size).policy
    melody = bundle._melodies(FRAMES)
    inputs = melody, jnp.arange(2), jax.random.key(0), Accompaniment(VOCABULARY)
    played_ = roll_out(network, policy.params, *inputs, validity_mask=False)
    found = functions.Functions(network, Accompaniment(VOCABULARY), 2, 1 + 2 * FRAMES)
    weights = functions.flatten(policy.params)
    nothing = np.zeros((2, 1), np.int32)
    logits, state = found.prefill(weights, nothing, nothing, jnp.int32(0))
    for frame in range(FRAMES):
        log_probs = jax.nn.log_softmax(logits)
        chosen = np.take_along_axis(np.asarray(log_probs), np.asarray(played_.actions)[:, frame, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen, played_.log_probs[:, frame], atol=1e-5)
        logits, state = found.commit_frame(weights, played_.actions[:, frame], melody[:, frame], verify.past(state))
    assert int(state["position"]) == 1 + 2 * FRAMES


def test_a_bundle_gets_to_its_place_where_no_folder_can_be_renamed(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "rename", refuses)
    with bundle._finished(tmp_path / "out") as folder:
        (folder / "manifest.json").write_text("{}")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["out/manifest.json"]


def test_nothing_is_left_where_verification_fails(tmp_path, monkeypatch):
    def fail(folder):
        raise UserError("it is not the same")

    monkeypatch.setattr(bundle, "prove", fail)
    with pytest.raises(UserError, match="not the same"):
        bundle.write(random_policy(), tmp_path / "out", Console(json_mode=False), with_onnx=False)
    assert list(tmp_path.iterdir()) == []


def test_commands(made, copied, tmp_path, capsys):
    assert command("export", "inspect", str(made())) == 0
    shown = capsys.readouterr().out
    assert "params.safetensors" in shown and "readable until" in shown
    assert command("verify", str(made())) == 0
    assert "is whole and plays the policy it was made from" in capsys.readouterr().out
    (copied / "config.json").write_text("{}")
    for arguments, words in [
        (("verify", str(copied)), "config.json was changed after it was written"),
        (("verify", str(tmp_path / "none")), "is no folder"),
        (("export", "inspect", str(tmp_path)), "has no SHA256SUMS"),
        (("export", str(tmp_path), "--out", str(tmp_path / "b")), "is no run"),
        (("export", "a", "b", "--out", "c"), "one run at a time"),
        (("serve", str(tmp_path)), "has no SHA256SUMS"),
        (("serve", str(made()), "--port", "99999"), "--port must be in 0..65535"),
    ]:
        assert command(*arguments) == 2
        assert words in capsys.readouterr().err
