"""Conversations and floor transfers for the report: `gapt_jax.task.Pages`, of turn-taking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gapt_jax.evaluation.results import Study
from gapt_jax.report.html import render
from gapt_jax.task import Pages

if TYPE_CHECKING:
    from gapt_jax.report.drawing import Drawn

TEMPLATES = Path(__file__).parent / "templates"


class _Pages(Pages):
    """What needs matplotlib, an optional extra, is imported where it is drawn."""

    def figures(self, study: Study) -> Iterator[Drawn]:
        from gapt_jax.tasks.turn_taking import lanes

        return lanes.draw_transfers(study)

    def pictures(self, study: Study) -> Iterator[Drawn]:
        from gapt_jax.tasks.turn_taking import lanes

        return lanes.draw_all(study)

    def section(self, study: Study, pictures: Sequence[Drawn]) -> str:
        """The conversations, one under the other."""
        return render("conversations.html", TEMPLATES, pictures=pictures) if pictures else ""


PAGES = _Pages()
