"""Conversations and floor transfers for the report: `gapt_jax.task.Pages`, of turn-taking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from gapt_jax.evaluation.results import Study
from gapt_jax.task import Pages

if TYPE_CHECKING:
    from gapt_jax.report.figures import Drawn


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
        shown = "".join(
            f'<h3>{escape(drawn.title)}</h3><figure><div class="scroll" tabindex="0" role="region" '
            f'aria-label="{escape(drawn.title)}"><div class="roll">{drawn.svg}</div></div>'
            f"<figcaption>{escape(drawn.caption)}</figcaption></figure>"
            for drawn in pictures
        )
        return f'<p class="soft">The same others, beside whom each system played.</p>{shown}' if shown else ""


PAGES = _Pages()
