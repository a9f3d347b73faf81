"""Bundles that somebody means harm with: refused in one sentence, none hangs, crashes or fills the memory."""

import contextlib
import copy
import hashlib
import json
import math
import os
import resource
import shutil
import socket
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from gapt_jax.config import TransformerConfig
from gapt_jax.errors import UserError
from gapt_jax.export import bundle, manifest, proof, verify
from gapt_jax.export.verify import FUNCTIONS, Refused, read_safetensors
from gapt_jax.runtime.console import Console
from tests.export.bundles import reseal
from tests.toy import gapt as command

# Other values that are as good as the exporter's: texts and facts that nothing else in a bundle can be held against.
FREE = {
    **dict.fromkeys(("adversarial_weight", "parity", "latency"), ("null",)),
    **dict.fromkeys(("max_abs_logit", "max_abs_log_prob", "kl_nats", "prefill", "step", "sampling"), ("negative",)),
    **dict.fromkeys(("run", "experiment", "system", "data_fingerprint", "jax", "source", "device"), ("wrong",)),
    **dict.fromkeys(("config_hash", "git_revision"), ("null", "wrong")),
    "name": ("wrong",),
    "seed": ("negative", "null"),
}
KINDS = ("SHA256SUMS", "manifest.json", "params.safetensors", "fn/plan.jaxexport", "README.md")


def sentence(folder: Path) -> str:
    """What `read_manifest` refuses a bundle with."""
    with pytest.raises(UserError) as reason:
        manifest.read_manifest(folder)
    text = str(reason.value)
    assert "\n" not in text and len(text) < 500 and text.isprintable(), text
    return text


def is_accepted(folder: Path, path: tuple) -> bool:
    """Whether a bundle would be used whose manifest is changed at `path`: functions are held against what they are."""
    try:
        manifest.read_manifest(folder)
        if path[0] == "functions":
            loaded = verify.load(folder)
            for name in FUNCTIONS:
                loaded.function(name)
    except (UserError, Refused) as reason:
        text = str(reason)
        assert "\n" not in text and len(text) < 500 and text.isprintable(), text
        return False
    return True


def mutations(value: object) -> dict[str, object]:
    """By kind: what the exporter would never write in place of a value."""
    deep: object = 1
    for _ in range(900):
        deep = [deep]
    found: dict[str, object] = {
        "null": None, "list": [], "table": {"a": 1}, "nan": math.nan, "infinite": math.inf, "deep": deep,
        "huge": 10**30, "negative": -10**7, "long": "x" * 10_000, "control": "a\x1b[2J\nb", "empty": "",
        "wrong": "float64x",
    }  # fmt: skip
    if isinstance(value, bool):
        found |= {"number": 1}
    elif isinstance(value, int):
        found |= {"text": str(value), "fraction": value + 0.5, "truth": True}
    elif isinstance(value, float):
        found |= {"text": str(value), "truth": True}
    elif isinstance(value, list | dict):
        found |= {"number": 3, "text": "x"}
        found.pop("list" if value == [] else "", None)
    return found


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of all fields, parents first; of a list its first and last item."""
    found = [path] if path else []
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = [(n, value[n]) for n in sorted({0, len(value) - 1})] if isinstance(value, list) and value else []
    return found + [place for name, item in items for place in places(item, (*path, name))]


def put(tree: object, path: tuple, value: object) -> object:
    tree = copy.deepcopy(tree)
    node = tree
    for name in path[:-1]:
        node = node[name]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return tree


def at(tree: object, path: tuple) -> object:
    for name in path:
        tree = tree[name]
    return tree


def sealed(folder: Path, name: str, text: str) -> None:
    """Writes a file and makes all hashes fit it; a manifest that cannot be read gets the hash in SHA256SUMS alone."""
    (folder / name).write_text(text)
    if name != "manifest.json":
        return reseal(folder)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    kept = [line for line in lines if not line.endswith("  manifest.json")]
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text("\n".join([*kept, f"{digest}  manifest.json"]) + "\n")


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "vocabulary.json"])
def test_every_field_of_every_json_file_is_checked(name, copied):
    whole = json.loads((copied / name).read_text())
    accepted = []
    for path in places(whole):
        if name == "manifest.json" and path[:1] == ("files",) and len(path) == 2:
            kinds = {"absent": ...}  # which file it is, the lists of hashes say
        else:
            kinds = {"absent": ...} | mutations(at(whole, path))
        for kind, value in kinds.items():
            if at(whole, path) == value and type(at(whole, path)) is type(value):
                continue
            sealed(copied, name, json.dumps(put(whole, path, value)))
            if is_accepted(copied, path) and kind not in FREE.get(path[-1], ()):
                accepted.append((path, kind))
    assert not accepted, accepted


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "3", '"x"', "{", "\x00", "[" * 100_000, "9" * 10_000, '{"schema": 1e999}', '{"a": NaN}'],
)
def test_what_is_no_table_is_refused(text, copied):
    for name in ("manifest.json", "config.json", "vocabulary.json"):
        kept = (copied / name).read_bytes()
        sealed(copied, name, text)
        sentence(copied)
        sealed(copied, name, kept.decode())


def test_a_name_that_stands_twice_and_one_that_nobody_knows_are_refused(copied):
    text = (copied / "manifest.json").read_text()
    sealed(copied, "manifest.json", text.replace('"dtype": "float32"', '"dtype": "int8", "dtype": "float32"', 1))
    assert "a name stands twice" in sentence(copied)
    sealed(copied, "manifest.json", json.dumps(json.loads(text) | {"extra": 1}))
    assert "'extra'" in sentence(copied)


def test_files_that_do_not_fit_each_other_are_refused(copied):
    text = (copied / "manifest.json").read_text()
    facts = json.loads(text)
    for name, value in {
        "max_frames": facts["max_frames"] + 1, "length": facts["length"] + 2, "vocabulary_hash": "0" * 16,
        "vocabulary_size": facts["vocabulary_size"] + 2, "weights_sha256": "0" * 64,
    }.items():  # fmt: skip
        sealed(copied, "manifest.json", json.dumps(facts | {name: value}))
        assert f"'{name}'" in sentence(copied)
    sealed(copied, "manifest.json", json.dumps(facts | {"functions": facts["functions"][::-1]}))
    assert "does not name the functions" in sentence(copied)
    wrong = facts["files"] | {"README.md": facts["files"]["README.md"] | {"bytes": 1 << 39}}
    sealed(copied, "manifest.json", json.dumps(facts | {"files": wrong}))
    assert "disagree about README.md" in sentence(copied)


def test_every_line_of_the_hashes_is_checked(copied):
    whole = (copied / "SHA256SUMS").read_text()
    lines = whole.splitlines()
    for number, line in enumerate(lines):
        digest, path = line[:64], line[66:]
        for wrong in (
            None, line.upper(), digest, path, f"{digest} {path}", f"{digest}\t {path}", f"{digest}   {path}",
            f"{digest}  ",
            f"{digest[:-1]}  {path}", f"{digest[1:]}g  {path}", f"{digest}  ../{path}", f"{digest}  /{path}",
            f"{digest}  ./{path}", f"{digest}  {path}/", f"{digest}  {path}\x00", f"{digest}  {path}\x1b[2J",
            f"{digest}  {path}é", f"{digest}  {'x' * 300}", f"{digest}  {'a/' * 50}x", f"{digest}  SHA256SUMS",
            f"{digest}  nothing", f"{'0' * 64}  {path}", f"{line}\n{line}", f"{line}\n{'0' * 64}  {path}",
            f"{line}\n", f"{line}\r", f"{digest} *{path}", f"\ufeff{line}", "x" * (2 << 20),
        ):  # fmt: skip
            changed = [*lines[:number], *([] if wrong is None else [wrong]), *lines[number + 1 :]]
            (copied / "SHA256SUMS").write_text("\n".join(changed) + "\n", encoding="utf-8")
            sentence(copied)
    (copied / "SHA256SUMS").write_text(f"{whole}{lines[0]}\n")
    assert "twice" in sentence(copied)
    for nothing in ("", "\n"):
        (copied / "SHA256SUMS").write_text(nothing)
        sentence(copied)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


def _link(path: Path) -> None:
    path.symlink_to(shutil.move(path.with_name(f"{path.name}.kept"), path.parents[2] / f"kept-{path.name}"))


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "manifest.json", "params.safetensors", "fn/plan.jaxexport", "README.md"]
)
@pytest.mark.parametrize("make", [_pipe, _socket, _link, _folder, _device])
@pytest.mark.timeout(60)
def test_only_plain_files_are_opened(make, name, copied, capsys):
    kept = copied / f"{name}.kept"
    (copied / name).rename(kept)
    make(copied / name)
    if kept.exists():
        kept.unlink()
    assert name in sentence(copied)
    with pytest.raises(Refused, match=name):
        verify.verify(copied)
    assert command("serve", str(copied)) == 2 and command("verify", str(copied)) == 2
    assert capsys.readouterr().err.count("\n") == 2
    if make is not _folder:
        with pytest.raises(Refused):  # whoever swaps the file after the look at the folder
            verify.read(copied / name)


def test_a_linked_folder_and_a_crowd_of_files_are_refused(copied, tmp_path):
    shutil.move(copied / "fn", tmp_path / "fn")
    (copied / "fn").symlink_to(tmp_path / "fn")
    assert "fn is a link" in sentence(copied)
    (copied / "fn").unlink()
    shutil.move(tmp_path / "fn", copied / "fn")
    for number in range(100):
        (copied / "fn" / str(number)).touch()
    assert "more than 64 files" in sentence(copied)


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "manifest.json", "params.safetensors", "fn/plan.jaxexport", "README.md"]
)
def test_a_file_that_is_too_large_is_not_read(name, copied):
    with (copied / name).open("r+b") as stream:
        stream.truncate(5 << 30)  # a hole
    assert f"{name} has 5,368,709,120 bytes" in sentence(copied)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [0, 1 << 70], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40, 0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}},
        {"a": {"dtype": "F32", "shape": [1] * 100_000 + [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}},
        {"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": None, "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"shape": [2], "data_offsets": [0, 8]}},
        {"a": 3},
        {"a": None},
        {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    ],
)
def test_headers_that_claim_what_the_file_does_not_hold(header, tmp_path):
    text, path = json.dumps(header).encode(), tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused, match="no safetensors file"):
        read_safetensors(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def function_file(folder: Path, name: str, content: bytes) -> None:
    (folder / f"fn/{name}.jaxexport").write_bytes(content)
    reseal(folder)


def crafted(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) and len(old) == len(new)
    return content.replace(old, new)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: b"nothing",
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes(len(content) - 200),
        lambda content: crafted(content, b"ML\xefR", b"XX\xefR"),
        lambda content: b"\xff" * 16 + content[16:],
    ],
)
def test_a_function_that_does_not_deserialise_is_one_sentence(change, copied, capsys):
    function_file(copied, "prefill", change((copied / "fn/prefill.jaxexport").read_bytes()))
    assert command("verify", str(copied)) == 2 and command("serve", str(copied)) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 2 and "Traceback" not in shown and str(copied) in shown
    with pytest.raises(UserError):
        proof.open_bundle(copied)


def test_a_function_of_absurd_size_does_not_take_the_memory(copied, capsys):
    content = (copied / "fn/prefill.jaxexport").read_bytes()
    found = export.deserialize(bytearray(content))

    def prefill(weights, chords, notes, frames):
        logits, state = found.call(weights, chords, notes, frames)
        much = jnp.cumsum(jnp.ones((1 << 31,), jnp.float32) * frames)  # 8 GiB, twice
        return logits + much[frames], state

    (arguments, _) = jax.tree.unflatten(found.in_tree, found.in_avals)
    shapes = jax.tree.map(lambda aval: jax.ShapeDtypeStruct(aval.shape, aval.dtype), arguments)
    function_file(copied, "prefill", bytes(export.export(jax.jit(prefill))(*shapes).serialize()))
    assert command("verify", str(copied)) == 2
    shown = capsys.readouterr().err
    assert "error: " in shown and shown.count("\n") == 1


def test_a_process_that_dies_is_named_by_its_signal(copied, monkeypatch, tmp_path, capsys):
    script = tmp_path / "dies.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(proof, "SCRIPT", script)
    assert command("verify", str(copied)) == 2 and command("serve", str(copied)) == 2
    shown = capsys.readouterr().err
    assert shown.count("SIGSEGV") == 2 and shown.count("\n") == 2


def test_refresh_refuses_weights_of_another_network(copied):
    settings = json.loads((copied / "config.json").read_text())
    settings["policy"]["depth"] = 1000
    sealed(copied, "config.json", json.dumps(settings))
    with pytest.raises(UserError, match="does not hold the network"):
        bundle.refresh(copied, Console(json_mode=False))


def test_every_setting_of_the_network_has_a_form():
    assert manifest._SETTINGS["policy"].keys() == TransformerConfig.__dataclass_fields__.keys()


def test_no_file_names_a_folder_of_the_exporter(made):
    folder = made()
    forbidden = {str(Path(place).resolve()) for place in (__file__, sys.prefix, folder, Path.home(), np.__file__)}
    forbidden |= {str(Path(__file__).parents[2]), str(folder.parent)}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in forbidden - {"/"}:
            assert place.encode() not in content, (path, place)
    for name in FUNCTIONS:
        assert b"functions.py" in (folder / f"fn/{name}.jaxexport").read_bytes()  # locations are there, without folders
