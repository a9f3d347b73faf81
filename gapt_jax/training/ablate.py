"""`gapt ablate`: every arm × seed of an ablation, as few programs as possible, one report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from gapt_jax.algorithm.state import program
from gapt_jax.config import Experiment, config_hash
from gapt_jax.errors import UserError
from gapt_jax.runtime import hosts, mesh
from gapt_jax.runtime.checkpoint import checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import read_json, strict_json, write_atomic
from gapt_jax.runtime.mesh import MeshMembers
from gapt_jax.training import run_folder, turns
from gapt_jax.training.job import Job, Upstream, agree, frozen_of, keep_stages, open_job, pretrain_all, stage_names
from gapt_jax.training.measure import baselines, evaluation_sets, evaluator_of, measure
from gapt_jax.training.population import Member, post_train
from gapt_jax.training.post_training import abstract_state, has_checkpoint, restore_policy
from gapt_jax.training.presets import Arm, check_different, settings_of


def ablate(
    base: Experiment,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    workdir: Path,
    console: Console,
    *,
    preset: str,
    at_once: int | None = None,
) -> dict[str, Any]:
    """Trains and evaluates all members that are not finished yet, and returns what ``ablation.json`` holds: in the
    first process, which writes it and decides what the folders say.

    Raises Preempted when told to stop; the same command goes on.
    """
    twice = [name for name, count in Counter(arm.name for arm in arms).items() if count > 1]
    if twice:
        raise UserError(f"the arm {twice[0]} is asked for twice")
    check_different(arms, base)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is not a folder: choose another --workdir")
    set_up(most_cores=len(arms) * len(seeds))
    hosts.start(console)
    workdir, base = workdir.resolve(), run_folder.with_absolute_paths(base)
    asked = {"arms": [(arm.name, settings_of(arm)) for arm in arms], "seeds": list(seeds), "at once": at_once}
    hosts.agree({"settings": run_folder.run_hash(base)} | {name: str(value) for name, value in asked.items()})
    members = [Member(arm.experiment(base, seed), workdir / f"{arm.name}-seed{seed}") for seed in seeds for arm in arms]
    for member in members:
        run_folder.check_same_run(member.experiment, member.folder)
    with turns.refused_if_taken(workdir, console), contextlib.ExitStack() as stack:
        record = _Record(workdir, base, arms, seeds, preset)
        _go_on_if_all_ended(members)
        for member in members:
            if _is_unfinished(member):
                stack.enter_context(turns.refused_if_taken(member.folder, console))
        record.write(members)
        hosts.wait_for_all("the record")  # by which the folders of members know where their stages are
        try:
            with hosts.watching_for_hangs(base.runtime.hang_minutes):
                for group in _groups(members):
                    _run_group(group, record, at_once, console)
        finally:
            content = record.write(members)
    return content


class _Record:
    """``ablation.json``: what was asked for, how far it is, what it took."""

    def __init__(self, workdir: Path, base: Experiment, arms: Sequence[Arm], seeds: Sequence[int], preset: str):
        self.path = workdir / run_folder.ABLATION
        known = read_json(self.path, "gapt ablate") if self.path.exists() else {"arms": []}
        if not isinstance(known, dict) or not isinstance(known.get("arms"), list):
            raise UserError(f"{self.path} is not the record of an ablation: choose another --workdir")
        left_out = {str(arm.get("name")) for arm in known["arms"]} - {arm.name for arm in arms}
        if left_out:
            raise UserError(
                f"{workdir} holds an ablation that has the arm {min(left_out)} too: ask for all of its arms, or choose "
                "another --workdir"
            )
        self._content: dict[str, Any] = {
            "schema": 1,
            "experiment": base.name,
            "preset": preset,
            "command": " ".join(["gapt", *sys.argv[1:]]),
            "baseline": arms[0].name,
            "arms": [{"name": arm.name, "label": arm.label, "settings": settings_of(arm)} for arm in arms],
            "seeds": list(seeds),
        }
        self.wall: dict[str, float] = known.get("wall_s", {})
        self.population: dict[str, int] = known.get("population", {})

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time of a block to that of all attempts."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.wall[name] = round(self.wall.get(name, 0.0) + time.monotonic() - started, 1)

    def write(self, members: Sequence[Member]) -> dict[str, Any]:
        if not hosts.is_first():
            return {}
        entries = [_entry(member) for member in members]
        content = self._content | {"members": entries, "wall_s": self.wall, "population": self.population}
        write_atomic(self.path, strict_json(content, indent=1))
        return content


def _entry(member: Member) -> dict[str, Any]:
    reason = member.why_stopped
    is_finished = (member.folder / "evaluation.json").exists()
    return {
        "folder": member.folder.name,
        "arm": member.arm,
        "seed": member.experiment.seed,
        "status": "stopped" if reason else "finished" if is_finished else "unfinished",
        "reason": reason,
    }


def _is_unfinished(member: Member) -> bool:
    return hosts.first_says(lambda: _entry(member)["status"] == "unfinished")


def _go_on_if_all_ended(members: Sequence[Member]) -> None:
    """Lets stopped members train on where no other one is unfinished: as a run does, at the command after the one that
    told of it. An interrupted ablation leaves them as they are."""
    if hosts.is_first() and all(_entry(member)["status"] != "unfinished" for member in members):
        for member in [member for member in members if member.why_stopped]:
            member.go_on()


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Members that run one program on the same data and the same supervised stages."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        experiment = dataclasses.replace(
            member.experiment, seed=0, arm="", algorithm=program(member.experiment.algorithm)
        )
        groups.setdefault(config_hash(experiment), []).append(member)
    return list(groups.values())


def _run_group(members: Sequence[Member], record: _Record, at_once: int | None, console: Console) -> None:
    unmeasured = [m for m in members if _is_unfinished(m)]
    if not unmeasured:
        return
    with record.timed("upstream"):
        job = _job_of(unmeasured[0], mesh.build(members[0].experiment.runtime.mesh), console)
        agree(job, {})
        if hosts.is_first():
            for member in unmeasured:
                run_folder.write_facts(member.folder, member.experiment, job.spec.task, job.facts, None)
        hosts.wait_for_all("facts")
        with hosts.saving_on_interrupt():
            upstream = pretrain_all(job, stage_names(job.experiment)[-1], lambda _: contextlib.nullcontext())
    assert upstream is not None  # the last stage is none of them
    keep_stages(job, record.path.parent)
    with record.timed("training"), hosts.saving_on_interrupt():
        _train(job, upstream, [m for m in unmeasured if not _is_trained(m, console)], record, at_once)
    with record.timed("evaluation"):
        _evaluate(job, upstream, [m for m in unmeasured if _is_unfinished(m)])


def _job_of(member: Member, devices: Any, console: Console) -> Job:
    return open_job(member.experiment, member.folder, devices, console)


def _member_job(job: Job, member: Member) -> Job:
    """The member's job. It keeps `job.spec`, whose program is that of all members, so that none is traced again."""
    return dataclasses.replace(job, experiment=member.experiment, workdir=member.folder)


def _is_trained(member: Member, console: Console) -> bool:
    folder = member.folder / "checkpoints"
    if not hosts.first_says(folder.exists):
        return False
    with checkpoints(folder, member.experiment.runtime, console) as saved:
        return hosts.first_says(lambda: member.experiment.algorithm.steps in saved.steps())


def _train(job: Job, upstream: Upstream, members: list[Member], record: _Record, at_once: int | None) -> None:
    if not members:
        return
    size = at_once or hosts.first_says(lambda: _that_fit(job, upstream, members))
    # Who was stopped goes on from that very step, and nobody who has begun starts anew beside one who has not.
    found = hosts.first_says(lambda: [(member.goes_on_from, has_checkpoint(member.folder)) for member in members])
    starts = {member.folder: tuple(start) for member, start in zip(members, found, strict=True)}
    kinds = dict.fromkeys(starts.values())
    alike = [[member for member in members if starts[member.folder] == kind] for kind in kinds]
    chunks = [some[n : n + size] for some in alike for n in range(0, len(some), size)]
    most = max(map(len, chunks))
    devices = mesh.split(job.layout.mesh, most).size
    if most >= record.population.get("members_at_once", 0):  # those gone on with alone are not what it was made by
        record.population = {"members_at_once": most, "devices": devices, "chunks": len(chunks)}
    is_full = not at_once and len(chunks) > len(alike)
    why = "" if len(chunks) == 1 else f", in {len(chunks)} chunks" + (": more do not fit the memory" if is_full else "")
    job.console.say(f"population: {len(members)} members, {most} at once on {devices} device(s){why}")
    for chunk in chunks:
        spread = MeshMembers.of(mesh.split(job.layout.mesh, len(chunk)))
        first = _member_job(job, chunk[0])
        post_train(first, chunk, frozen_of(first, upstream), upstream.policy, evaluator_of(first, upstream), spread)


def _that_fit(job: Job, upstream: Upstream, members: Sequence[Member]) -> int:
    """How many members the devices can hold: three states each (before, after, being saved), beside the frozen
    models; half of the memory is left to what an iteration computes."""
    state = abstract_state(job.spec, upstream.policy, members[0].experiment)
    one = 3 * _bytes(state)
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    limit = stats["bytes_limit"] if stats else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
    each = max(int((limit / 2 - _bytes(frozen_of(job, upstream))) // one), 1)
    return min(each * len(jax.devices()), len(members))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _evaluate(job: Job, upstream: Upstream, members: Sequence[Member]) -> None:
    """Members in turn; data and the supervised policy, which they share, once."""
    known = baselines(job, upstream) if members else {}
    with job.console.progress("evaluation", len(members)) as progress:
        for number, member in enumerate(members, start=1):
            own = _member_job(job, member)
            found = restore_policy(own.spec, upstream.policy, member.experiment.runtime, member.folder, job.console)
            assert found is not None  # it was trained to its last step
            measure(own, upstream, found, evaluation_sets(member.experiment), known=known)
            progress.update(number)
