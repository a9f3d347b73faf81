"""What an engine's plan is held against: the same plan without anything that was kept of earlier ones."""

from gapt_jax.live.engine import Engine, Planned, _Branch


def planned_from_scratch(engine: Engine) -> Planned:
    """The plan again, its cache made anew and the branch in one go; the engine is left as it was."""
    branch, last, kept = engine._branch, engine._last_plan, (engine._older, engine.decided)
    assert branch
    engine._older = engine._remembered(engine._older.base, branch.start)
    engine.decided = engine.decided[: branch.start + branch.given]
    scratch = _Branch(branch.start, branch.drawing, engine._older.state)
    engine._extend(scratch, branch.end)
    engine._older, engine.decided = kept
    return engine._planned(scratch, last.base + len(last.actions))
