"""Foreign weights against outputs of x-transformers, files of torch.save, and what must never be opened."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from gapt_jax import models
from gapt_jax.algorithm.reward_models import ContrastiveReward, DiscriminativeReward
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.errors import UserError
from gapt_jax.export.torch_chords import chord_names, read_chord, read_vocabulary
from gapt_jax.export.torch_file import read_state_dict
from gapt_jax.export.torch_import import Imported, bare_name, import_checkpoint, import_state_dict
from gapt_jax.models.networks import pair, part
from gapt_jax.tasks.accompaniment.reward_models import VOICES
from gapt_jax.vocabulary import Vocabulary
from tests.export import xtransformers_golden as golden
from tests.toy import gapt

TINY = Path(__file__).with_name("tiny.pth")
FIXED = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))
SIZES = TransformerConfig(dim=golden.DIM, depth=golden.DEPTH, heads=golden.HEADS)
GAIN = "decoder.attn_layers.layers.0.1.qk_norm_q_scale"
QUERY = "decoder.attn_layers.layers.2.1.to_q.weight"
FREQUENCIES = "decoder.attn_layers.rotary_pos_emb.inv_freq"


def state(kind: str) -> dict[str, np.ndarray]:
    return golden.weights(FIXED[kind]["shapes"])


def network(found: Imported) -> models.Model:
    config = ModelsConfig(found.config, found.config, found.config, found.config)
    rewards = {
        "contrastive": ContrastiveReward(found.size, VOICES),
        "discriminative": DiscriminativeReward(found.size),
    }
    networks = models.build(config, golden.SIZE, rewards)
    kind = found.kind.removeprefix("rhythm_")
    return networks.rewards[kind] if kind in rewards else getattr(networks, kind)


def ours(found: Imported, kind: str) -> dict[str, np.ndarray]:
    """What our network says about `golden.inputs`, under the names of the golden outputs."""
    outputs = jax.jit(network(found).__call__)(found.params, *golden.inputs(kind))
    if kind in ("policy", "anchor"):
        return {"logits": np.asarray(outputs)[:, golden.SHOWN]}
    names = ("melody", "chords", "scale") if kind.endswith("contrastive") else ("difference",)
    return dict(zip(names, map(np.asarray, outputs if len(names) > 1 else [outputs]), strict=True))


def theirs(outputs: dict) -> dict[str, np.ndarray]:
    found = {name: np.array(value) for name, value in outputs.items()}
    if found.get("logits", np.zeros(0)).ndim == 2:  # two classes, of which ours gives the difference
        found = {"difference": found["logits"][:, 1] - found["logits"][:, 0]}
    return found


@pytest.mark.parametrize("kind", golden.KINDS)
def test_our_networks_compute_what_x_transformers_does(kind):
    found = import_state_dict(state(kind))
    assert (found.kind, found.config, found.notes) == (kind, SIZES, ())
    assert found.size == (6 if kind.startswith("rhythm") else golden.SIZE)
    like = network(found).init(jax.random.key(0))
    assert jax.tree.map(np.shape, like) == jax.tree.map(np.shape, found.params)
    expected = theirs(FIXED[kind]["outputs"])
    got = ours(found, kind)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_what_this_torch_computes_is_what_is_stored():
    pytest.importorskip("torch")
    pytest.importorskip("x_transformers")
    fresh = golden.golden()
    for kind in golden.KINDS:
        assert fresh[kind]["shapes"] == FIXED[kind]["shapes"]
        for name, value in fresh[kind]["outputs"].items():
            np.testing.assert_allclose(value, FIXED[kind]["outputs"][name], rtol=0, atol=1e-5, err_msg=f"{kind} {name}")


def test_our_inputs_are_those_that_the_weights_know():
    """BOS melody EOS, BOS, BOS chords EOS, the padding of both in its place (docs/method.md §1.6)."""
    melody, chords = np.array([[5, 6, 0]], np.int32), np.array([[30, 31, 0]], np.int32)
    assert part(melody).tolist() == [[1, 5, 6, 2, 0]]
    assert pair(melody, chords).tolist() == [[1, 5, 6, 2, 0, 1, 1, 30, 31, 2, 0]]


def test_a_changed_weight_changes_the_logits():
    changed = state("policy")
    changed[QUERY] = changed[QUERY].T.copy().reshape(changed[QUERY].shape)
    got = ours(import_state_dict(changed), "policy")["logits"]
    assert np.abs(got - theirs(FIXED["policy"]["outputs"])["logits"]).max() > 0.01


def test_a_critic_is_a_policy_with_one_output():
    held = state("policy")
    held["decoder.to_logits.weight"] = held["decoder.to_logits.weight"][:1]
    found = import_state_dict(held)
    assert found.kind == "critic" and found.params["head"]["kernel"].shape == (golden.DIM, 1)


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "model.module.", "module.model.", "model._orig_mod.", "_orig_mod.", "model.module._orig_mod."],
)
def test_prefixes_of_wrappers_do_not_matter(prefix):
    found = import_state_dict({prefix + name: value for name, value in state("anchor").items()})
    assert found.kind == "anchor"
    assert bare_name(f"{prefix}decoder.decoder.to_logits.weight") == "decoder.decoder.to_logits.weight"


def test_compiled_parts_inside_a_module():
    assert bare_name("model.decoder._orig_mod.to_logits.weight") == "decoder.to_logits.weight"
    assert bare_name("decoder._orig_mod.to_logits.weight") == "decoder.to_logits.weight"


def test_weights_rounded_to_bfloat16():
    """A module cast to bfloat16 rounds its rotary frequencies, too; ours stay exact, and that is said."""
    rounded = {name: value.astype(ml_dtypes.bfloat16).astype(np.float32) for name, value in state("policy").items()}
    found = import_state_dict(rounded)
    assert len(found.notes) == 1 and "rounded to bfloat16" in found.notes[0]
    got = ours(found, "policy")["logits"]
    assert 1e-4 < np.abs(got - theirs(FIXED["policy"]["outputs"])["logits"]).max() < 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop(GAIN), f"the state dict lacks the tensor {GAIN}"),
        (lambda s: s.pop("decoder.token_emb.emb.weight"), "lacks the tensor decoder.token_emb.emb.weight"),
        (lambda s: s.pop("decoder.to_logits.weight"), "lacks the tensor decoder.to_logits.weight"),
        (lambda s: s.pop(FREQUENCIES), f"lacks the tensor {FREQUENCIES}"),
        (lambda s: s.update({QUERY: s[QUERY].T}), f"{QUERY} with the shape [64, 128] instead of [128, 64]"),
        (lambda s: s.update({GAIN: np.ones(3)}), f"{GAIN} with the shape [3], where 3 dimensions are expected"),
        (
            lambda s: s.update({"decoder.to_q.bias": np.ones(3)}),
            "'decoder.to_q.bias', which has no place in our policy",
        ),
        (lambda s: s.update({f"module.{GAIN}": s[GAIN]}), f"holds '{GAIN}' twice"),
        (lambda s: s.update({QUERY: s[QUERY] * np.nan}), f"holds numbers in {QUERY} that are not finite"),
        (lambda s: s.update({QUERY: s[QUERY].astype(int)}), f"holds {QUERY} as int64, which weights are not"),
        (lambda s: s.update({FREQUENCIES: s[FREQUENCIES] ** 2}), f"{FREQUENCIES} of other rotary positions than ours"),
        (lambda s: [s.pop(n) for n in list(s) if ".3.1." in n], "lacks the tensor decoder.attn_layers.layers.3.1.ff.0"),
        (lambda s: [s.pop(n) for n in list(s) if "attn" in n or "emb" in n], "no policy, anchor or reward model"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    held = state("policy")
    change(held)
    with pytest.raises(UserError) as raised:
        import_state_dict(held)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_stacks_of_different_depth_are_no_network_of_ours():
    held = {n: v for n, v in state("anchor").items() if not n.startswith("encoder.attn_layers.layers.2.")}
    with pytest.raises(UserError, match=r"lacks the tensor encoder\.attn_layers\.layers\.2\.1\.to_q\.weight"):
        import_state_dict(held)


def test_rotary_weights_are_no_anchor():
    held = state("anchor") | {"encoder.attn_layers.rotary_pos_emb.inv_freq": golden.frequencies(16)}
    with pytest.raises(UserError, match="inv_freq', which has no place in our anchor"):
        import_state_dict(held)


def test_a_file_that_torch_wrote():
    found = read_state_dict(TINY)
    expected = golden.tiny_tensors()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and (found[name] == value).all(), name
    kinds = {name: value.dtype.name for name, value in found.items()}
    assert kinds["rounded"] == "float32" and kinds["half"] == "float16" and kinds["counts"] == "int64"


def test_a_checkpoint_that_this_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    golden.write_tiny(tmp_path / "a.pth")
    assert {n: v.tolist() for n, v in read_state_dict(tmp_path / "a.pth").items()} == {
        n: v.tolist() for n, v in golden.tiny_tensors().items()
    }
    held = {f"model._orig_mod.{name}": torch.from_numpy(value) for name, value in state("anchor").items()}
    torch.save({"state_dict": held, "global_step": 1}, tmp_path / "step=1.ckpt")
    assert import_checkpoint(tmp_path / "step=1.ckpt").kind == "anchor"


def test_safetensors(tmp_path):
    path = tmp_path / "actor.safetensors"
    held = {f"model.module.{name}": value.astype(ml_dtypes.bfloat16) for name, value in state("policy").items()}
    safetensors.numpy.save_file(held, path)
    assert {value.dtype.name for value in read_state_dict(path).values()} == {"float32"}
    found = import_checkpoint(path)
    assert found.kind == "policy" and found.notes
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(Harmful(tmp_path / "x")))
    with pytest.raises(UserError, match="is damaged"):
        read_state_dict(path)
    assert not (tmp_path / "x").exists()


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def archived(path: Path, content: bytes, **members: bytes) -> Path:
    """A file as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        for name, member in members.items():
            archive.writestr(f"archive/data/{name.removeprefix('n')}", member)
    return path


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path):
    made = tmp_path / "made"
    for held in (Harmful(made), {"state_dict": {"a": Harmful(made)}}, {"state_dict": {}, "callbacks": [Harmful(made)]}):
        path = archived(tmp_path / "bad.pth", pickle.dumps(held))
        with pytest.raises(UserError, match="holds code, not only weights: convert it to safetensors"):
            read_state_dict(path)
    assert not made.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cos\nsystem\n(Vtrue\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"ctorch._utils\n_rebuild_tensor\n.",
        b"ctorch.serialization\nload\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x07Counter\x93.",
        b"cargparse\nNamespace\n.",
        b"cnumpy\nload\n.",
        b"ctorch\nload\n.",
    ],
)
def test_no_name_but_those_of_weights_is_found(content, tmp_path):
    with pytest.raises(UserError, match="holds code, not only weights"):
        read_state_dict(archived(tmp_path / "x.pth", content))


@pytest.mark.parametrize(
    "content",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n}Vwhat\nI1\nsb.",  # gives a function a state
        b"ctorch\nFloatStorage\n(I1\ntb.",
        b"ctorch\nFloatStorage\n(I1\ntR.",
        b"ccollections\nOrderedDict\n}Vitems\nI1\nsb.",  # gives the class a state
        b"Vx\nQ.",  # a persistent id that is no storage
        b"(" * 100_000 + b".",
        b"]" + b"]a" * 10 + b"e.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"r\xff\xff\xff\x7f.",
        b"",
        b"K\x01.",
        b"}Va\nK\x01s.",
    ],
)
def test_odd_pickles_are_one_sentence(content, tmp_path):
    path = archived(tmp_path / "x.pth", content)
    with pytest.raises(UserError, match=r"x\.pth (is damaged|holds)") as raised:
        read_state_dict(path)
    assert raised.value.__cause__ is None


def tensor_pickle(offset: int, shape: str, strides: str, length: int = 4, kind: str = "FloatStorage") -> bytes:
    """The pickle of {"a": tensor} over storage 0."""
    numbers = (shape, strides)
    shapes = "".join("(" + "".join(f"I{n}\n" for n in text.split()) + "t" for text in numbers)
    return (
        f"}}Va\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n{kind}\nV0\nVcpu\nI{length}\ntQI{offset}\n"
        f"{shapes}I00\nNtRs."
    ).encode()


FLOATS = np.arange(4, dtype="<f4").tobytes()


def test_tensors_by_hand(tmp_path):
    path = archived(tmp_path / "x.pth", tensor_pickle(1, "2", "2"), n0=FLOATS)
    assert read_state_dict(path)["a"].tolist() == [1.0, 3.0]
    path = archived(tmp_path / "x.pth", tensor_pickle(0, "2 2", "1 2"), n0=FLOATS)
    assert read_state_dict(path)["a"].tolist() == [[0.0, 2.0], [1.0, 3.0]]


@pytest.mark.parametrize(
    "content",
    [
        tensor_pickle(0, "5", "1"),
        tensor_pickle(1, "4", "1"),
        tensor_pickle(5, "", ""),
        tensor_pickle(0, "2", "4"),
        tensor_pickle(0, "2", "-1"),
        tensor_pickle(-1, "2", "1"),
        tensor_pickle(0, "-2", "1"),
        tensor_pickle(0, "2", "1 1"),
        tensor_pickle(0, f"{1 << 40}", "0"),  # one number, said to fill a terabyte
        tensor_pickle(0, f"{1 << 62} 4", "0 0"),
        tensor_pickle(0, "4", "1", length=5),
        tensor_pickle(0, "4", "1", kind="DoubleStorage"),
        tensor_pickle(0, "4", "1").replace(b"V0\n", b"V../0\n"),
        tensor_pickle(0, "4", "1").replace(b"V0\n", b"V1\n"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(content, tmp_path):
    with pytest.raises(UserError, match="is damaged"):
        read_state_dict(archived(tmp_path / "x.pth", content, n0=FLOATS))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_one_sentence(tmp_path_factory, data):
    whole = TINY.read_bytes()
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    cut = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:cut])
    else:
        path.write_bytes(whole[:cut] + bytes([whole[cut] ^ data.draw(st.integers(1, 255))]) + whole[cut + 1 :])
    try:
        read_state_dict(path)
    except UserError as error:
        assert str(error).startswith(str(path)) and error.__cause__ is None


def test_files_that_are_none(tmp_path):
    path = tmp_path / "x.pth"
    with pytest.raises(UserError, match="cannot be read"):
        read_state_dict(path)
    path.write_bytes(TINY.read_bytes()[:-100])
    with pytest.raises(UserError, match="or cut off"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="no zip archive"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(UserError, match="but none that"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match="is compressed"):
        read_state_dict(path)
    with pytest.raises(UserError, match="holds no tensors"):
        read_state_dict(archived(path, pickle.dumps({}, protocol=2)))
    whole = io.BytesIO(TINY.read_bytes())
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, b"big" if entry.filename.endswith("byteorder") else source.read(entry))
    with pytest.raises(UserError, match="big-endian"):
        read_state_dict(path)


def test_a_file_larger_than_the_limit_is_not_read(tmp_path, monkeypatch):
    path = Path(shutil.copy(TINY, tmp_path))
    monkeypatch.setattr("gapt_jax.export.torch_file.MAX_BYTES", 3000)
    with pytest.raises(UserError, match="more than the 3000 that are read"):
        read_state_dict(path)
    path = archived(tmp_path / "x.pth", tensor_pickle(0, "500", "1", length=500), n0=bytes(2000))
    monkeypatch.setattr("gapt_jax.export.torch_file.MAX_BYTES", 2400)
    assert path.stat().st_size > 2400
    with pytest.raises(UserError, match="2400"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "name, root, intervals",
    [
        ("C", 0, (0, 4, 7)),
        ("Dbm", 1, (0, 3, 7)),
        ("Ebmaj7", 3, (0, 4, 7, 11)),
        ("F+7", 5, (0, 4, 8, 10)),
        ("Go7", 7, (0, 3, 6, 9)),
        ("Ao", 9, (0, 3, 6)),
        ("Am7b5", 9, (0, 3, 6, 10)),
        ("Bmmaj7", 11, (0, 3, 7, 11)),
        ("Csus", 0, (0, 5, 7)),
        ("Csus2", 0, (0, 2, 7)),
        ("Csus7", 0, (0, 5, 7, 10)),
        ("C6/9", 0, (0, 2, 4, 7, 9)),
        ("C5", 0, (0, 7)),
        ("Cped", 0, (0,)),
        ("C(add2)", 0, (0, 2, 4, 7)),
        ("Gbped(add2)(add3)", 6, (0, 2, 4)),
        ("C7b9", 0, (0, 1, 4, 7, 10)),
        ("C7(#9)", 0, (0, 3, 4, 7, 10)),
        ("C7(b5)", 0, (0, 4, 6, 10)),
        ("C7(no5)", 0, (0, 4, 10)),
        ("Cmaj7#11", 0, (0, 4, 6, 7, 11)),
        ("Bb13", 10, (0, 2, 4, 5, 7, 9, 10)),  # a lead sheet's 13 has no 11th
        ("Dsus2(addb7)", 2, (0, 2, 7, 10)),
        ("Co(add7)", 0, (0, 3, 6, 11)),
        ("F/C", 0, (0, 5, 9)),  # the chord was given as C with a fourth and a sixth
        ("C6/9/E", 4, (0, 3, 5, 8, 10)),
        ("Dm/E", 4, (0, 1, 5, 10)),
    ],
)
def test_chords_as_note_seq_writes_them(name, root, intervals):
    assert read_chord(name) == (root, intervals)


@pytest.mark.parametrize(
    "name", ["", "H", "c", "Cfoo", "C7(", "C(add)", "C/", "C/H", "N.C.", "C(bbb7)", "C" * 99, "C7\n"]
)
def test_what_note_seq_does_not_write_is_not_read(name):
    with pytest.raises(ValueError, match="no chord name of note-seq"):
        read_chord(name)


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_vocabulary_keeps_the_order_of_the_names(tmp_path):
    names = ["Am7", "C6", "C", "Cm", "Am7/C"]
    path = written(tmp_path / "names.json", names)
    assert chord_names(path) == names
    vocabulary = read_vocabulary(path, 270)
    assert vocabulary.size == 270 and vocabulary.names == tuple(names)
    assert vocabulary.describe(262) == "chord hold C" and vocabulary.describe(266) == "chord onset C6"
    assert vocabulary.tables.root[260:265].tolist() == [9, 0, 0, 0, 0]
    assert vocabulary.chord_pitch_classes[3].nonzero()[0].tolist() == [0, 3, 7]
    assert vocabulary.nearest_chord(0, (0, 4, 7, 9)) == (1, True)  # the first of two names of one chord
    assert (vocabulary.tables.pitch_classes[261] == vocabulary.tables.pitch_classes[264]).all()
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(
    "value, message",
    [
        (["C", "Cm"], "has 2 chord names, which makes 264 tokens, but the weights have 266"),
        (["C", "Cm", "Dx"], "'Dx' is no chord name of note-seq"),
        (["C", "Cm", "C"], "has the chord name 'C' twice"),
        (["C", 1, "D"], "is not a JSON array of chord names"),
        ({"C": 1}, "is not a JSON array of chord names"),
        ([], "is not a JSON array of chord names"),
    ],
)
def test_chord_names_that_do_not_fit(value, message, tmp_path):
    with pytest.raises(UserError) as raised:
        read_vocabulary(written(tmp_path / "names.json", value), 266)
    assert message in str(raised.value)


def test_chord_names_that_are_no_json(tmp_path):
    with pytest.raises(UserError, match="no readable JSON"):
        chord_names(tmp_path / "absent.json")
    (tmp_path / "x.json").write_bytes(b"\xff[")
    with pytest.raises(UserError, match="no readable JSON"):
        chord_names(tmp_path / "x.json")


def test_a_policy_becomes_a_bundle(tmp_path, capsys):
    """The command: a checkpoint and its chord names to a bundle that plays the imported weights."""
    names = ["C", "Dbm", "E7", "F/C"]
    size = 260 + 2 * len(names)
    shapes = FIXED["policy"]["shapes"]
    known = shapes["decoder.token_emb.emb.weight"][0]
    shapes = {name: [size if n == known else n for n in shape] for name, shape in shapes.items()}
    tensors = golden.weights(shapes)
    safetensors.numpy.save_file(tensors, tmp_path / "actor.safetensors")
    (tmp_path / "names.json").write_text(json.dumps(names))
    arguments = ("import-torch", str(tmp_path / "actor.safetensors"), "--chord-names", str(tmp_path / "names.json"))
    assert gapt(*arguments, "--out", str(tmp_path / "bundle")) == 0
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert manifest["vocabulary_size"] == size and manifest["max_frames"] == 256
    stored = safetensors.numpy.load_file(tmp_path / "bundle/params.safetensors")
    np.testing.assert_array_equal(stored["embed.embedding"], tensors["decoder.token_emb.emb.weight"])
    capsys.readouterr()
    (tmp_path / "names.json").write_text(json.dumps([*names, "G"]))
    assert gapt(*arguments, "--out", str(tmp_path / "other")) == 2
    assert "error: " in capsys.readouterr().err and not (tmp_path / "other").exists()
    safetensors.numpy.save_file(state("discriminative"), tmp_path / "actor.safetensors")
    assert gapt(*arguments, "--out", str(tmp_path / "other")) == 2
    assert "only a policy becomes a bundle" in capsys.readouterr().err
