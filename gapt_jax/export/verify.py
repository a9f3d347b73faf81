"""Reads and proves a serving bundle with NumPy and JAX alone: ``python verify.py DIR`` needs no other package.
With ``--try`` it only runs every function once, which is what a server wants to know before it does so itself.

Only plain files of limited size are opened, and each is checked against its hash before it is used. Nothing is
unpickled, no code of the bundle runs but its exported functions, and no path of it leads outside. Hashes tell damage,
not who made a bundle: take yours from people whom you trust.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import io
import json
import math
import os
import re
import resource
import stat
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "gapt-serving/2"
MANIFEST, SUMS, WEIGHTS, GOLDEN, START = (
    *("manifest.json", "SHA256SUMS", "params.safetensors", "golden.safetensors"),
    "onnx/start.safetensors",
)
FUNCTIONS = ("prefill", "step", "commit_frame", "plan")
STATE_ARGUMENT = {"step": 2, "commit_frame": 3, "plan": 9}  # whose buffers a call may use up
ONNX = "onnx/commit_frame.onnx"
PAST, PRESENT = "past_key_values", "present"
BOS = 1
DRAWS = 256  # of the sampling test
MAX_ERROR = 1e-3  # of logits, from machine to machine
MAX_DRIFT = {"float32": 1e-6, "bfloat16": 0.01, "int8": 0.1}  # nats, mean over frames: KL(checkpoint || bundle)
MAX_BYTES = {".json": 4 << 20, ".jaxexport": 64 << 20, ".onnx": 2 << 30, ".safetensors": 4 << 30}
_MAX_TEXT = 1 << 20  # bytes of any other file
_MAX_ENTRIES = 64  # files and folders
_MAX_RANK, _MAX_DIMENSION = 8, 1 << 40  # of a tensor; its bytes must be in the file
_MEMORY = 4 << 30  # bytes that a proof may take beside `_MEMORY_TIMES` those of the weights
_MEMORY_TIMES = 16
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")  # of a path
_DTYPES = {"F32": np.float32, "I32": np.int32, "I8": np.int8, "BF16": None}

State = dict[str, Any]


class Refused(Exception):
    """Why a bundle cannot be used, in one sentence."""


class Bundle:
    """A bundle whose files are whole; its functions are compiled when they are first called."""

    def __init__(self, folder: Path, manifest: dict[str, Any], weights: dict[str, Any]) -> None:
        self.folder, self.manifest, self.weights = folder, manifest, weights
        self._functions: dict[str, Any] = {}

    def function(self, name: str) -> Any:
        """One of `FUNCTIONS`: takes the weights first. `step` and `commit_frame` use up the state that is given."""
        if name not in self._functions:
            (claims,) = (facts for facts in self.manifest["functions"] if facts["name"] == name)
            path = self.folder / f"fn/{name}.jaxexport"
            self._functions[name] = _callable(path, name, claims, len(self.weights))
        return self._functions[name]

    def start(self, batch: int = 1) -> tuple[Any, State]:
        """(logits of the first chord [B, V], the state of new sessions)."""
        nothing = np.zeros((batch, 1), np.int32)
        logits, state = self.function("prefill")(self.weights, nothing, nothing, np.int32(0))
        return logits, past(state)


def past(state: State) -> State:
    """What a function handed back, named as the next one takes it."""
    return {name.replace(PRESENT, PAST): array for name, array in state.items()}


def _callable(path: Path, name: str, claims: dict[str, Any], weights: int) -> Any:
    """An exported function, compiled at its first call. Raises Refused where it cannot be read, compiled or run, or is
    not what the manifest `claims`; its first inputs are so many weights."""
    import jax
    from jax import export

    def refused(error: Exception) -> Refused:
        return Refused(
            f"{path} cannot be run by JAX {jax.__version__} ({_first_line(error)}): rebuild it with "
            "'gapt export refresh'"
        )

    content = read(path)
    try:
        found = export.deserialize(bytearray(content))
    except Exception as error:
        raise refused(error) from error
    facts = {
        "platforms": list(found.platforms),
        "calling_convention": found.calling_convention_version,
        "inputs": [shaped(aval) for aval in found.in_avals[weights:]],
        "outputs": [shaped(aval) for aval in found.out_avals],
    }
    arrays = {key: [{**array, "name": ""} for array in claims[key]] for key in ("inputs", "outputs")}
    if facts != {key: (claims | arrays)[key] for key in facts}:
        raise Refused(f"{path} does not take and give what the manifest says: copy the bundle again")
    compiled = jax.jit(found.call, donate_argnums=STATE_ARGUMENT.get(name, ()))

    def call(*arguments: Any) -> Any:
        try:
            return compiled(*arguments)
        except Exception as error:
            raise refused(error) from error

    return call


def shaped(aval: Any, name: str = "") -> dict[str, Any]:
    """An input or output as the manifest has it; sizes that calls may choose are letters."""
    return {"name": name, "shape": [n if isinstance(n, int) else str(n) for n in aval.shape], "dtype": str(aval.dtype)}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


def load(folder: Path) -> Bundle:
    """A bundle with all its files checked. Raises Refused with the reason."""
    folder = Path(folder)
    manifest = check_files(folder)
    check_expiry(folder, manifest)
    return Bundle(folder, manifest, read_safetensors(folder / WEIGHTS))


def check_files(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are exactly those it names, each with its size and hash."""
    if not folder.is_dir():
        raise Refused(f"{folder} is no folder: give the folder that gapt export wrote")
    if not os.path.lexists(folder / SUMS):
        raise Refused(f"{folder} has no {SUMS}: it is no bundle, or a part of one")
    present, sums = _plain_files(folder), _read_sums(folder)
    for path in sorted(present - {SUMS}):
        if path not in sums:
            raise Refused(f"{folder / path} is in no list of the bundle: remove it")
    digests = {path: _digest(folder / path) for path in sorted(sums)}
    for path, digest in digests.items():
        if digest != sums[path]:
            owner = next((other for other, expected in sums.items() if expected == digest), None)
            if owner:
                raise Refused(f"{folder / path} holds what belongs into {owner}: copy the bundle again")
            raise Refused(f"{folder / path} was changed after it was written (its SHA-256 differs): copy it again")
    manifest = _read_manifest(folder)
    for path, facts in manifest["files"].items():
        if sums.get(path) != facts.get("sha256") or facts.get("bytes") != (folder / path).lstat().st_size:
            raise Refused(f"{folder / MANIFEST} and {SUMS} disagree about {path}: copy the bundle again")
    if set(manifest["files"]) != set(sums) - {MANIFEST}:
        raise Refused(f"{folder / MANIFEST} does not name the files that {SUMS} names: copy the bundle again")
    return manifest


def _plain_files(folder: Path) -> set[str]:
    """Paths of all files of a bundle. Refuses links, pipes, sockets and devices before anything is opened."""
    found: set[str] = set()
    waiting, entries = [folder], 0
    while waiting:
        path, entries = waiting.pop(), entries + 1
        kind = path.lstat().st_mode
        if entries > _MAX_ENTRIES:
            raise Refused(f"{folder} holds more than {_MAX_ENTRIES} files and folders: it is no bundle")
        if path == folder or stat.S_ISDIR(kind):
            waiting += path.iterdir()
        elif stat.S_ISLNK(kind):
            raise Refused(f"{path} is a link: a bundle holds plain files")
        elif stat.S_ISREG(kind):
            found.add(path.relative_to(folder).as_posix())
        else:
            raise Refused(f"{path} is a pipe, a socket or a device: a bundle holds plain files")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """A plain file of no more than its kind may have, opened without following a link or waiting for a pipe."""
    most = MAX_BYTES.get(path.suffix, _MAX_TEXT)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise Refused(f"{path} is no plain file: copy the bundle again")
            if facts.st_size > most:
                raise Refused(f"{path} has {facts.st_size:,} bytes, more than the {most:,} that are read")
            yield stream
    except FileNotFoundError:
        raise Refused(f"{path} is missing: copy the bundle again") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(f"{path} is a link: a bundle holds plain files") from None
        raise Refused(f"{path} cannot be read ({error.strerror}): check its rights") from None


def read(path: Path) -> bytes:
    """The content of a file of a bundle."""
    with _opened(path) as stream:
        return stream.read()


def read_json(path: Path) -> Any:
    """The content of a JSON file without NaN, infinities and names that stand twice."""

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name stands twice")
        return dict(pairs)

    try:
        return json.loads(read(path).decode(), parse_constant=constant, object_pairs_hook=table)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path} cannot be read ({_first_line(error)}): copy the bundle again") from None


def _inside(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= 4 and all(_PART.fullmatch(part) for part in parts)


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = read(folder / SUMS).decode("ascii").removesuffix("\n").split("\n")
    except ValueError as error:
        raise Refused(f"{folder / SUMS} cannot be read ({_first_line(error)}): copy the bundle again") from None
    sums: dict[str, str] = {}
    for line in lines:
        digest, gap, path = line[:64], line[64:66], line[66:]
        if gap != "  " or not re.fullmatch("[0-9a-f]{64}", digest):
            raise Refused(f"{folder / SUMS} has a line that is no hash and path: copy the bundle again")
        if not _inside(path):
            raise Refused(f"{folder / SUMS} names {path[:100]!r}, which is outside the bundle")
        if path in sums:
            raise Refused(f"{folder / SUMS} names {path} twice: copy the bundle again")
        sums[path] = digest
    if MANIFEST not in sums:
        raise Refused(f"{folder / SUMS} does not name {MANIFEST}: copy the bundle again")
    return sums


def _digest(path: Path) -> str:
    with _opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = read_json(path)
    try:
        schema, files = manifest["schema"], manifest["files"]
        named = [*files, *(function["file"] for function in manifest["functions"])]
        whole = all(isinstance(name, str) for name in named) and all(isinstance(f, dict) for f in files.values())
    except (KeyError, TypeError, AttributeError):
        raise Refused(f"{path} is no manifest of a bundle") from None
    if schema != SCHEMA:
        raise Refused(f"{path} has the schema {str(schema)[:100]!r}; this reads {SCHEMA!r}")
    for name in named:
        if not whole or not _inside(name):
            raise Refused(f"{path} names {str(name)[:100]!r}, which is outside the bundle")
    missing = [name for name in named if name not in files]
    if missing:
        raise Refused(f"{path} names {missing[0]!r}, of which it has no hash")
    return manifest


def check_expiry(folder: Path, manifest: dict[str, Any]) -> None:
    """Compiled functions are readable for a limited time; the weights for ever."""
    try:
        expires = datetime.date.fromisoformat(manifest["expires"])
    except (KeyError, TypeError, ValueError):
        raise Refused(f"{folder / MANIFEST} does not say until when the bundle is readable: copy it again") from None
    if datetime.date.today() > expires:
        raise Refused(
            f"the compiled functions of {folder} expired on {expires}: rebuild them with 'gapt export refresh {folder}'"
        )


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, which must fill it from end to end; refuses everything else."""
    content = read(path)
    size = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or size > min(MAX_BYTES[".json"], len(content) - 8):
            raise ValueError("its header is cut off")
        header = json.loads(content[8 : 8 + size])
        data, entries = memoryview(content)[8 + size :], dict(header)
        entries.pop("__metadata__", None)
        arrays, places = {}, []
        for name, entry in entries.items():
            arrays[name] = _array(data, entry)
            places.append(tuple(entry["data_offsets"]))
        ends = [0, *(end for _, end in sorted(places))]
        if [start for start, _ in sorted(places)] != ends[:-1] or ends[-1] != len(data):
            raise ValueError("its tensors overlap or leave gaps")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if content[:1] == b"\x80" or content[:2] == b"PK":
            raise Refused(f"{path} is a pickle, not safetensors: it could run code, and is not opened") from None
        raise Refused(f"{path} is no safetensors file ({_first_line(error)}): copy it again") from None
    return arrays


def _array(data: memoryview, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"a tensor of {str(entry['dtype'])[:20]!r}")
    dtype = _DTYPES[entry["dtype"]] or _bfloat16()
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > _MAX_RANK:
        raise ValueError(f"a tensor of more than {_MAX_RANK} dimensions")
    if not all(type(n) is int and 0 <= n <= _MAX_DIMENSION for n in (*shape, start, end)):
        raise ValueError("a tensor that lies outside the file")
    if not start <= end <= len(data):
        raise ValueError("a tensor that lies outside the file")
    if math.prod(shape) * np.dtype(dtype).itemsize != end - start:
        raise ValueError("a tensor whose shape is not that of its bytes")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def _bfloat16() -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def replay(bundle: Bundle, golden: dict[str, np.ndarray]) -> np.ndarray:
    """[B, T, V] logits of every chord, the golden chords and notes teacher-forced frame by frame."""
    commit = bundle.function("commit_frame")
    logits, state = bundle.start(len(golden["melody"]))
    found = [np.asarray(logits)]
    for chord, note in zip(golden["chords"].T[:-1], golden["melody"].T[:-1], strict=True):
        logits, state = commit(bundle.weights, chord, note, state)
        found.append(np.asarray(logits))
        state = past(state)
    return np.stack(found, axis=1)


def replay_onnx(bundle: Bundle, golden: dict[str, np.ndarray]) -> np.ndarray:
    """The same by ONNX Runtime."""
    session, (logits, state) = onnx_session(bundle.folder), onnx_start(bundle, len(golden["melody"]))
    found = [logits]
    for chord, note in zip(golden["chords"].T[:-1], golden["melody"].T[:-1], strict=True):
        logits, state = onnx_commit(session, np.stack([chord, note], axis=1), state)
        found.append(logits)
    return np.stack(found, axis=1)


def onnx_session(folder: Path, threads: int = 0) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])


def onnx_start(bundle: Bundle, batch: int) -> tuple[np.ndarray, State]:
    """(logits, state) of new sessions for ONNX Runtime, from the stored first column of each cache."""
    stored = read_safetensors(bundle.folder / START)
    length = bundle.manifest["length"]
    state: State = {"position": np.array([1], np.int32)}
    for name, first in stored.items():
        if name != "logits":
            axis = 3 if name.endswith("key") else 2
            room = [(0, length - 1 if n == axis else 0) for n in range(4)]
            state[name] = np.repeat(np.pad(first, room), batch, axis=0)
    return np.repeat(stored["logits"], batch, axis=0), state


def onnx_commit(session: Any, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    """Tokens [B, 2] of a frame into the state: (logits [B, V], state)."""
    outputs = session.run(None, {"tokens": tokens.astype(np.int32)} | state)
    names = [output.name for output in session.get_outputs()]
    found = past(dict(zip(names, outputs, strict=True)))
    return found.pop("logits"), found | {"position": state["position"] + 2}


def _against_golden(logits: np.ndarray, golden: dict[str, np.ndarray]) -> dict[str, float]:
    """Error against the checkpoint: largest of the stored logits, agreement of the likeliest chord where it leads by
    more than the error may be, mean KL over the stored frames in nats."""
    frames = golden["frames"]
    expected, found = golden["logits"], logits[:, frames]
    ordered = np.sort(expected, axis=-1)
    leads = ordered[..., -1] - ordered[..., -2] > 2 * MAX_ERROR
    same = found.argmax(-1) == expected.argmax(-1)
    p, q = _log_softmax(expected.astype(np.float64)), _log_softmax(found.astype(np.float64))
    chosen = np.take_along_axis(_log_softmax(logits), golden["chords"][..., None], axis=-1)[..., 0]
    return {
        "max_abs_logit": float(np.abs(found - expected).max()),
        "max_abs_log_prob": float(np.abs(chosen - golden["log_probs"]).max()),
        "argmax_agreement": float(same[leads].mean()) if leads.any() else 1.0,
        "kl_nats": float((np.exp(p) * (p - q)).sum(-1).mean()),
    }


def _greedy_agrees(logits: np.ndarray, golden: dict[str, np.ndarray], margin: float) -> bool:
    """Whether the likeliest token of every frame is the golden one. As these are what greedy play has committed, the
    melody is then accompanied token for token."""
    chosen = np.take_along_axis(logits, golden["chords"][..., None], axis=-1)[..., 0]
    return bool((logits.max(-1) - chosen <= margin).all())


def _check_functions(bundle: Bundle, golden: dict[str, np.ndarray], logits: np.ndarray) -> dict[str, float]:
    """`prefill` and `step` against `commit_frame`, `plan` against the probabilities it should sample from."""
    half = golden["melody"].shape[1] // 2
    chords, notes = golden["chords"], golden["melody"]
    prefilled, state = bundle.function("prefill")(bundle.weights, chords, notes, np.int32(half))
    state = past(state)
    kept = {name: np.array(array) for name, array in state.items()}
    errors = {"prefill": float(np.abs(np.asarray(prefilled) - logits[:, half]).max())}
    sampled = _sampling_error(bundle, chords[:, half - 1], notes[:, half - 1], np.asarray(prefilled), kept)
    _, state = bundle.function("step")(bundle.weights, chords[:, half], state)
    stepped, _ = bundle.function("step")(bundle.weights, notes[:, half], past(state))
    errors["step"] = float(np.abs(np.asarray(stepped) - logits[:, half + 1]).max())
    return errors | {"sampling": sampled}


def _sampling_error(bundle: Bundle, chord: Any, note: Any, logits: np.ndarray, state: State) -> float:
    """Largest difference between how often `plan` draws a chord, over evenly spread numbers, and its probability."""
    plan, counts = bundle.function("plan"), np.zeros(logits.shape, np.float64)
    grid = (np.arange(DRAWS, dtype=np.float32) + 0.5) / DRAWS
    batch = len(chord)
    for number in grid:
        uniforms = np.full((batch, 1, 2), number, np.float32)
        free = np.full((batch, 1), -1, np.int32)
        options = np.int32(1), np.float32(1), np.bool_(False)
        chords, _, _ = plan(bundle.weights, logits, chord, note, free, uniforms, *options, state)
        counts[np.arange(batch), np.asarray(chords)[:, 0]] += 1 / DRAWS
    return float(np.abs(counts - softmax(logits)).max())


def verify(folder: Path) -> dict[str, Any]:
    """Proves a bundle: the parity figures of its manifest. Raises Refused with the first thing that fails."""
    bundle = load(folder)
    manifest = bundle.manifest
    golden = read_safetensors(bundle.folder / GOLDEN)
    logits = replay(bundle, golden)
    drift, dtype = _against_golden(logits, golden), manifest["dtype"]
    found: dict[str, Any] = {"jax": drift, "frames": int(golden["melody"].size)}
    if not np.isfinite(logits).all():
        raise Refused(f"the policy of {folder} gives logits that are not finite")
    if not drift["kl_nats"] <= MAX_DRIFT[dtype]:
        raise Refused(
            f"the policy of {folder} is not that of its checkpoint: {drift['kl_nats']:.2g} nats apart, where {dtype} "
            f"may be {MAX_DRIFT[dtype]:g}"
        )
    if dtype == "float32" and not _greedy_agrees(logits, golden, 2 * MAX_ERROR):
        raise Refused(f"played greedily, {folder} does not give the chords that its checkpoint gave")
    found["functions"] = _check_functions(bundle, golden, logits)
    for name in ("prefill", "step"):
        if not found["functions"][name] <= MAX_ERROR:
            error = found["functions"][name]
            raise Refused(f"'{name}' of {folder} disagrees with 'commit_frame': {error:.2g} in a logit")
    if not found["functions"]["sampling"] <= 1.5 / DRAWS:
        raise Refused(f"'plan' of {folder} does not sample from the policy's probabilities")
    if (folder / ONNX).exists():
        try:
            import onnxruntime as _  # noqa: F401
        except ImportError:
            found["onnx"] = "not checked: onnxruntime is not installed"
        else:
            error = float(np.abs(replay_onnx(bundle, golden) - logits).max())
            found["onnx"] = {"max_abs_logit": error}
            if not error <= MAX_ERROR:
                raise Refused(f"{folder / ONNX} disagrees with JAX: {error:.2g} in a logit")
    return found


def try_functions(folder: Path) -> dict[str, Any]:
    """Runs every function of a bundle once, for one song. Raises Refused where one cannot be."""
    bundle = load(folder)
    logits, state = bundle.start()
    token = np.zeros(1, np.int32)
    logits, state = bundle.function("commit_frame")(bundle.weights, token, token, state)
    logits, state = bundle.function("step")(bundle.weights, token, past(state))
    options = np.int32(1), np.float32(1), np.bool_(True)
    free, uniforms = np.full((1, 1), -1, np.int32), np.zeros((1, 1, 2), np.float32)
    chords, *_ = bundle.function("plan")(bundle.weights, logits, token, token, free, uniforms, *options, past(state))
    if not np.isfinite(np.asarray(logits)).all():
        raise Refused(f"the policy of {folder} gives logits that are not finite")
    return {"chords": np.asarray(chords).tolist()}


def _limit_memory(folder: Path) -> None:
    """So that what a bundle claims cannot take the memory of the machine; GPUs map theirs in ways of their own."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        size = sum(path.lstat().st_size for path in folder.glob(WEIGHTS))
        limit, most = _MEMORY + _MEMORY_TIMES * size, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))


def main() -> int:
    *options, place = sys.argv[1:] or ["--help"]
    if options not in ([], ["--try"]) or place.startswith("-"):
        print("usage: python verify.py [--try] DIR", file=sys.stderr)
        return 2
    folder = Path(place)
    try:
        _limit_memory(folder)
        found = try_functions(folder) if options else verify(folder)
    except Refused as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"refused: {folder} cannot be proved ({_first_line(error)}): make the bundle anew", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
