"""Figures, piano rolls and sound for the report: `gapt_jax.task.Pages`, of accompaniment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gapt_jax.evaluation.results import Study
from gapt_jax.task import Pages
from gapt_jax.tasks.accompaniment import player

if TYPE_CHECKING:
    from gapt_jax.report.drawing import Drawn


class _Pages(Pages):
    """What needs matplotlib, an optional extra, is imported where it is drawn."""

    heading = "Listen"

    def figures(self, study: Study) -> Iterator[Drawn]:
        from gapt_jax.report.drawing import finish
        from gapt_jax.report.figures import sampled
        from gapt_jax.tasks.accompaniment import adaptation_figure

        if adaptation_figure.is_measured(study):
            caption = "Note-in-chord by beat; the melody moves at the upright line. Solid: moved; dashed: not; dotted: "
            caption += "by chance. "
            yield finish(
                "adaptation",
                "Adaptation to a change of key",
                caption + sampled(study),
                lambda: adaptation_figure.adaptation(study),
            )

    def pictures(self, study: Study) -> Iterator[Drawn]:
        from gapt_jax.tasks.accompaniment import piano_roll

        return piano_roll.draw_all(study)

    def section(self, study: Study, pictures: Sequence[Drawn]) -> str:
        return player.section(study, pictures)

    @property
    def script(self) -> str:
        return player.script()


PAGES = _Pages()
