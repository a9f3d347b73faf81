"""``gapt export``, ``verify`` and ``import-torch``: policies as bundles for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.commands.parsing import add_command, choice
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json

if TYPE_CHECKING:
    from gapt_jax.export.card import Training

_DTYPES = ("float32", "bfloat16", "int8")
_ABOUT = """\
Writes a bundle: weights, settings, vocabulary, compiled functions for CPU, CUDA and TPU, ONNX where its packages are
installed, golden inputs and outputs, a model card, hashes. It is proved in a fresh process before it takes its place.
"""
_EXAMPLES = """
examples:
  gapt export runs/small --out bundles/small
  gapt export runs/small --policy mle --dtype int8 --out bundles/small-mle
  gapt export inspect bundles/small      what is in it: sizes, parity, latency
  gapt export refresh bundles/small      rebuild what is compiled from the weights
"""
_ACTIONS = ("inspect", "refresh")


def add_parser(commands: Any) -> None:
    """Adds ``export``, ``verify`` and ``import-torch`` to the parser of ``gapt``."""
    export = add_command(commands, "export", _export, "write a policy as a bundle for serving, and prove it")
    export.formatter_class = argparse.RawDescriptionHelpFormatter
    export.description, export.epilog = _ABOUT, _EXAMPLES
    export.add_argument("what", nargs="+", metavar="RUN", help="folder of a run; or 'inspect DIR', 'refresh DIR'")
    export.add_argument("--out", type=Path, metavar="DIR", help="folder of the bundle, which must not exist yet")
    export.add_argument(
        "--policy",
        **choice("trained", "mle"),
        default="trained",
        help="the post-trained one (default) or the supervised one",
    )
    export.add_argument("--step", type=int, metavar="N", help="a checkpoint that was kept (default: the newest)")
    export.add_argument(
        "--dtype", **choice(*_DTYPES), default="float32", help="of the stored weights (default: float32)"
    )
    export.add_argument(
        "--onnx", action=argparse.BooleanOptionalAction, default=None, help="default: where its packages are installed"
    )
    export.add_argument(
        "--license", type=_licence, metavar="TEXT", help="of the weights, for the model card, as apache-2.0"
    )
    verify = add_command(commands, "verify", _verify, "prove a bundle in a process that knows nothing of this package")
    verify.add_argument("bundle", type=Path, metavar="DIR", help="folder of the bundle")
    foreign = add_command(commands, "import-torch", _import_torch, "make a bundle of a published PyTorch policy")
    foreign.add_argument("checkpoint", type=Path, metavar="FILE", help=".safetensors, .pth, .ckpt or .pt")
    foreign.add_argument("--chord-names", type=Path, required=True, metavar="FILE", help="its vocabulary, a JSON list")
    foreign.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the bundle")


def _licence(text: str) -> str:
    if not (text.strip() and text.isprintable() and len(text) <= 100):
        raise argparse.ArgumentTypeError("a licence is one line of 1 to 100 characters")
    return text.strip()


def _training(run: Path, mixture: Sequence[tuple[str, float]], licence: str) -> Training:
    """What the model card tells of a run: its training sets, by what is known of their names, and its command."""
    from gapt_jax.data_pipeline import upstream
    from gapt_jax.export.card import Training, TrainingSet, without_folders

    sets = tuple(TrainingSet(name, weight, *upstream.terms(name)) for name, weight in mixture)
    command = read_json(run / "run.json", "gapt run").get("command", "")
    return Training(sets, without_folders(" ".join(command.split())), licence)


def _export(args: argparse.Namespace, console: Console) -> None:
    if args.what[0] in _ACTIONS and len(args.what) == 2:
        action = {"inspect": _inspect, "refresh": _refresh}[args.what[0]]
        return action(Path(args.what[1]), console)
    if len(args.what) != 1:
        raise UserError(f"one run at a time, not {len(args.what)}: gapt export RUN --out DIR")
    run = Path(args.what[0])
    if not (run / "config.json").is_file():
        raise UserError(f"{run} is no run: give the folder that gapt run wrote")
    if args.out is None:
        raise UserError("--out names the folder of the bundle: gapt export RUN --out DIR")
    if args.policy == "mle" and args.step is not None:
        raise UserError("--step is of a post-trained policy: leave it out with --policy mle")
    from gapt_jax.export import bundle
    from gapt_jax.training.saved import load_policy

    policy = load_policy(run, console, supervised=args.policy == "mle", step=args.step)
    measured = run / "evaluation.json"
    evaluation = read_json(measured, "gapt evaluate") if measured.is_file() and args.step is None else None
    training = _training(run, policy.experiment.data.mixture, args.license or "")
    manifest = bundle.write(
        policy,
        args.out,
        console,
        dtype=args.dtype,
        with_onnx=args.onnx,
        evaluation=evaluation,
        training=training,
    )
    console.emit(manifest)
    _show(args.out, manifest, console)
    console.say(f"wrote {args.out}")
    console.say(f"next: gapt serve {args.out}, or gapt jam {args.out}")


def _refresh(folder: Path, console: Console) -> None:
    from gapt_jax.export import bundle
    from gapt_jax.runtime.devices import set_up

    set_up()
    manifest = bundle.refresh(folder, console)
    console.emit(manifest)
    _show(folder, manifest, console)
    console.say(f"wrote {folder}")


def _inspect(folder: Path, console: Console) -> None:
    from gapt_jax.export.manifest import read_manifest

    manifest = read_manifest(folder)
    if manifest["parity"] is None or manifest["latency"] is None:
        raise UserError(f"{folder} was never proved: rebuild it with 'gapt export refresh {folder}'")
    console.emit(manifest)
    _show(folder, manifest, console)
    console.say(f"next: gapt verify {folder}")


def _verify(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.export.proof import prove

    found = prove(args.bundle)
    console.emit(found)
    console.table("against the checkpoint", ("figure", "value"), _parity_rows(found))
    console.say(f"{args.bundle} is whole and plays the policy it was made from")


def _import_torch(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.export import bundle
    from gapt_jax.export.torch_policy import read_policy
    from gapt_jax.runtime.devices import set_up

    set_up()
    policy = read_policy(args.checkpoint, args.chord_names, console)
    manifest = bundle.write(policy, args.out, console)
    console.emit(manifest)
    _show(args.out, manifest, console)
    console.say(f"wrote {args.out}")
    console.say(f"next: gapt serve {args.out}")


def _show(folder: Path, manifest: dict[str, Any], console: Console) -> None:
    files = [(path, facts["bytes"]) for path, facts in sorted(manifest["files"].items())]
    total = sum(size for _, size in files)
    console.table(
        f"{folder}: {manifest['name']}, {manifest['parameters']:,} parameters in {manifest['dtype']}",
        ("file", "kB"),
        [*((path, f"{size / 1000:.1f}") for path, size in files), ("all", f"{total / 1000:.1f}")],
    )
    origin = manifest["origin"]
    console.say(
        f"from {origin['run']}, {origin['system']}, step {origin['step']}; weights {manifest['weights_sha256'][:12]}"
    )
    console.say(f"compiled functions are readable until {manifest['expires']}")
    console.table("against the checkpoint", ("figure", "value"), _parity_rows(manifest["parity"]))
    latency = manifest["latency"]
    rows = [
        (name, f"{found['p50_ms']:.2f}", f"{found['p95_ms']:.2f}", f"{found['times_engine']:.2f}")
        for name, found in latency.items()
        if isinstance(found, dict)
    ]
    title = f"one frame, one song, on {latency['device']} with {latency['cores']} cores"
    console.table(title, ("by", "p50 ms", "p95 ms", "times the engine"), rows)


def _parity_rows(found: dict[str, Any]) -> Sequence[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("logits, largest error", f"{found['jax']['max_abs_logit']:.2g}"),
        ("log-probabilities, largest error", f"{found['jax']['max_abs_log_prob']:.2g}"),
        ("likeliest chord the same", f"{100 * found['jax']['argmax_agreement']:.1f} %"),
        ("KL from the checkpoint, nats", f"{found['jax']['kl_nats']:.2g}"),
        ("prefill beside frame by frame", f"{found['functions']['prefill']:.2g}"),
        ("sampled shares beside probabilities", f"{found['functions']['sampling']:.2g}"),
    ]
    if "onnx" in found:
        onnx = found["onnx"]
        rows.append(("ONNX beside JAX", f"{onnx['max_abs_logit']:.2g}" if isinstance(onnx, dict) else onnx))
    return rows
