"""Versions of what a run depends on, and which of them are too new for it."""

from __future__ import annotations

import platform
import re
from importlib import metadata

NEWEST_TESTED = {
    "python": "3.13",
    "jax": "0.12",
    "flax": "0.12",
    "optax": "0.2",
    "orbax-checkpoint": "0.12",
    "numpy": "2.5",
    "scipy": "1.18",
}
# From here on `import orbax.checkpoint` means another API. The bound of pyproject.toml.
TOO_NEW = {"orbax-checkpoint": "1"}


def installed() -> dict[str, str]:
    """The versions of Python and of the packages that decide whether a run works."""
    packages = NEWEST_TESTED.keys() - {"python"}
    found = {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    return {name: found[name] for name in NEWEST_TESTED}


def too_new(versions: dict[str, str]) -> list[str]:
    """What does not work, as sentences."""
    return [
        f"{name} {versions[name]} is too new: install '{name}<{bound}'"
        for name, bound in TOO_NEW.items()
        if _numbers(versions[name]) >= _numbers(bound)
    ]


def untested(versions: dict[str, str]) -> list[str]:
    """What may work, but is newer than any version that was tested, as sentences."""
    return [
        f"{name} {versions[name]} is newer than {newest}, the newest tested"
        for name, newest in NEWEST_TESTED.items()
        if _numbers(versions[name])[: len(_numbers(newest))] > _numbers(newest)
    ]


def _numbers(version: str) -> tuple[int, ...]:
    """0.12.0rc1 is (0, 12, 0)."""
    return tuple(int(number) for number in re.findall(r"(?:^|\.)(\d+)", version))
