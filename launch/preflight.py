"""Whether a run can start here: devices, network, storage, data. Start it as the run itself.

python -m gapt_jax.launch.preflight --workdir /mnt/gapt/runs/pod --devices 64
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console

_LEAST_FREE = 10 * 2**30  # bytes; a round number
Check = tuple[str, Callable[[], str]]  # what, and a function that returns what it found or raises


class CheckFailed(Exception):
    """The message says what is wrong and where to look."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from gapt_jax.runtime import hosts

    try:
        hosts.start(Console())
    except UserError as error:
        Console().warn(str(error))
        return 1
    import jax

    rows = [_perform(name, check) for name, check in checks(args)]
    failed = {name for name, ok, _ in rows if not ok}
    passed, code = not failed, 2 if failed == {"songs"} else 1  # other songs: what was asked for is wrong
    if jax.process_index() == 0 or not passed:
        cells = [[name, "ok" if ok else "FAILED", found] for name, ok, found in rows]
        Console().table(f"process {jax.process_index()} of {jax.process_count()}", ["check", "", "found"], cells)
    try:
        hosts.agree({"their checks": passed})
    except UserError:
        if passed:
            Console().warn("a check of another process has failed: see its output")
        return code
    return 0 if passed else code


def checks(args: argparse.Namespace) -> list[Check]:
    """All checks, in an order that every process follows: some of them wait for the others."""
    cache = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or Path.home() / ".cache" / "gapt-jax" / "xla")
    result: list[Check] = [
        ("devices", lambda: count_devices(args.devices)),
        ("sum over all devices", sum_over_devices),
        ("workdir writable", lambda: write_and_replace(args.workdir)),
        ("workdir shared", lambda: see_the_others(args.workdir)),
        ("free space", lambda: free_space(args.workdir, _LEAST_FREE)),
        ("compile cache writable", lambda: write_and_replace(cache)),
    ]
    if args.fingerprint:
        result.append(("songs", lambda: compare_songs(args.experiment, args.set, args.workdir, args.fingerprint)))
    return result


def count_devices(expected: int | None) -> str:
    import jax

    found = jax.device_count()
    text = f"{found} × {jax.devices()[0].device_kind}, {jax.local_device_count()} of them here"
    if expected is not None and found != expected:
        raise CheckFailed(f"{text}; expected {expected}")
    return text


def sum_over_devices() -> str:
    """Each device adds its number + 1: a device that is left out or counted twice shows."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = np.asarray(jax.devices())
    sharding = NamedSharding(Mesh(devices, ("all",)), PartitionSpec("all"))
    ones = np.arange(1, len(devices) + 1, dtype=np.int32)
    array = jax.make_array_from_callback(ones.shape, sharding, lambda index: ones[index])
    replicated = NamedSharding(sharding.mesh, PartitionSpec())
    found = int(jax.jit(lambda x: x.sum(), out_shardings=replicated)(array).addressable_data(0))
    if found != ones.sum():
        raise CheckFailed(f"{found} instead of {ones.sum()}: some devices do not reach the others")
    return str(found)


def write_and_replace(folder: Path) -> str:
    """A file takes the place of another in one step; of folders nothing needs that."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".preflight-{uuid.uuid4().hex}"
    try:
        probe.mkdir()
        (probe / "whole").write_bytes(b"old")
        (probe / "part").write_bytes(b"part")
        os.replace(probe / "part", probe / "whole")
        if (probe / "whole").read_bytes() != b"part":
            raise CheckFailed(f"{folder}: a renamed file has lost its content")
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    return str(folder)


def see_the_others(folder: Path) -> str:
    """Every process leaves a file; then every process must see all of them."""
    import jax

    from gapt_jax.runtime import hosts

    files = [folder / f".preflight-process-{index}" for index in range(jax.process_count())]
    mine, fault = files[jax.process_index()], ""
    try:
        mine.write_text("")
    except OSError as error:
        fault = error.strerror or str(error)  # the others wait for us all the same
    hosts.wait_for_all("preflight written")
    unseen = [index for index, path in enumerate(files) if not path.exists()]
    hosts.wait_for_all("preflight seen")
    mine.unlink(missing_ok=True)
    if fault or unseen:
        raise CheckFailed(fault or f"files of processes {unseen} are not seen: is {folder} the same storage for all?")
    return f"by {_count(len(files), 'process', 'processes')}"


def free_space(folder: Path, least: int) -> str:
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.0f} GiB"
    if free < least:
        raise CheckFailed(f"{text}; at least {least / 2**30:.0f} GiB are needed for checkpoints")
    return text


def compare_songs(experiment: str, settings: Sequence[str], workdir: Path, expected: str) -> str:
    """The fingerprint of the songs, ``data_fingerprint`` in the ``run.json`` of a run; prepares them if need be."""
    from gapt_jax import experiments
    from gapt_jax.overrides import override

    chosen = override(experiments.load(experiment), settings)
    corpus = chosen.domain().open(chosen.data, workdir.parent / "data", workdir, None).corpus
    if corpus.fingerprint != expected:
        raise CheckFailed(
            f"{corpus.fingerprint}; expected {expected}: these are other songs, set data.songs to those of the run"
        )
    return corpus.fingerprint


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _perform(name: str, check: Callable[[], str]) -> tuple[str, bool, str]:
    try:
        return name, True, check()
    except Exception as error:  # whatever it is, the table must show it
        return name, False, " ".join(f"{error}".split()) or type(error).__name__


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gapt_jax.launch.preflight", description="Check that a run can start here."
    )
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--devices", type=int, metavar="N", help="of all hosts together")
    parser.add_argument("--fingerprint", default="", metavar="HEX", help="of the songs; needs --experiment")
    parser.add_argument("--experiment", default="", metavar="EXPERIMENT", help="whose songs to compare")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as for gapt run")
    args = parser.parse_args(argv)
    if bool(args.fingerprint) != bool(args.experiment):
        parser.error("--fingerprint and --experiment go together")
    if args.fingerprint and not re.fullmatch("[0-9a-f]{12}", args.fingerprint):
        parser.error(f"--fingerprint {args.fingerprint} is not twelve hex digits: take data_fingerprint of run.json")
    return args


if __name__ == "__main__":
    sys.exit(main())
