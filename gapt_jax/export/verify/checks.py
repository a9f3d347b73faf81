"""Whether a bundle plays the policy that it was made from: its functions against golden inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .files import GOLDEN, Refused, read_safetensors
from .playing import ONNX, Bundle, State, load, onnx_commit, onnx_session, onnx_start, past

DRAWS = 256  # of the sampling test
MAX_ERROR = 1e-3  # of logits, from machine to machine
MAX_DRIFT = {"float32": 1e-6, "bfloat16": 0.01, "int8": 0.1}  # nats, mean over frames: KL(checkpoint || bundle)


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
