"""Which versions are too new, and that the bounds are those of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import jax
import pytest

from gapt_jax.runtime import versions
from gapt_jax.training import doctor

ROOT = Path(__file__).parents[2]


def test_the_installed_versions_are_told():
    found = versions.installed()
    assert list(found) == list(versions.NEWEST_TESTED) and found["jax"] == jax.__version__
    assert not versions.too_new(found)


@pytest.mark.parametrize(
    ("version", "is_too_new", "is_untested"),
    [
        ("0.11.36", False, False),
        ("0.12.8", False, False),
        ("0.12", False, False),
        ("0.13.0", False, True),
        ("1.0.0rc1", True, True),
        ("1", True, True),
    ],
)
def test_a_version_is_compared_by_its_numbers(version, is_too_new, is_untested):
    found = dict(versions.NEWEST_TESTED) | {"orbax-checkpoint": version}
    told = [f"orbax-checkpoint {version} is too new: install 'orbax-checkpoint<1'"]
    assert versions.too_new(found) == told * is_too_new
    told = [f"orbax-checkpoint {version} is newer than 0.12, the newest tested"]
    assert versions.untested(found) == told * is_untested


def test_pip_knows_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {re.split("[<>=]", needed)[0]: needed for needed in project["dependencies"] if "<" in needed}
    assert bounds.keys() == versions.TOO_NEW.keys()
    for name, bound in versions.TOO_NEW.items():
        assert bounds[name].endswith(f",<{bound}")


def test_doctor_fails_where_a_version_is_too_new(monkeypatch):
    monkeypatch.setattr(versions, "installed", lambda: versions.NEWEST_TESTED | {"orbax-checkpoint": "1.0.0"})
    checks = {what: (holds, seen) for what, holds, seen in doctor._machine()}
    told = "orbax-checkpoint 1.0.0 is too new: install 'orbax-checkpoint<1'"
    assert checks["no version is too new"] == (False, told)
    assert "orbax-checkpoint 1.0.0" in checks["versions"][1]
