"""The policies that are installed with the package: bundles in ``gapt_jax/bands``."""

from __future__ import annotations

from pathlib import Path

from gapt_jax.errors import UserError
from gapt_jax.export.verify import MANIFEST

FOLDER = Path(__file__).parents[1] / "bands"
FOLDERS = {  # by what a player sees; the first one plays unless another is chosen
    "with the adversary": "with_the_adversary",
    "rewards alone": "rewards_alone",
    "supervised": "supervised",
}


def installed() -> dict[str, Path]:
    """The bundles by their names. Raises UserError where there is none."""
    found = {name: FOLDER / folder for name, folder in FOLDERS.items() if (FOLDER / folder / MANIFEST).is_file()}
    if not found:
        raise UserError(
            "no policies are installed with this version: name a run or a bundle, as in 'gapt jam RUN' "
            "('gapt run smoke' makes a run in runs/smoke)"
        )
    return found
