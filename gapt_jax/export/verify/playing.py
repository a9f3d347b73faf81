"""A bundle that plays: its exported functions by JAX, its graph by ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .files import START, WEIGHTS, Refused, check_expiry, check_files, first_line, read, read_safetensors

FUNCTIONS = ("prefill", "step", "commit_frame", "plan")
STATE_ARGUMENT = {"step": 2, "commit_frame": 3, "plan": 9}  # whose buffers a call may use up
ONNX = "onnx/commit_frame.onnx"
PAST, PRESENT = "past_key_values", "present"

State = dict[str, Any]


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
            f"{path} cannot be run by JAX {jax.__version__} ({first_line(error)}): rebuild it with "
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


def load(folder: Path) -> Bundle:
    """A bundle with all its files checked. Raises Refused with the reason."""
    folder = Path(folder)
    manifest = check_files(folder)
    check_expiry(folder, manifest)
    return Bundle(folder, manifest, read_safetensors(folder / WEIGHTS))


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
