"""How the package is installed: extras that documents and messages name, and which Orbax is tested."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from gapt_jax import errors
from gapt_jax.export import onnx

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXTS = [
    path
    for folder in ("gapt_jax", "data_pipeline", "experiments", "launch", "docs", ".")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.*")
    if path.suffix in (".py", ".md")
]


def test_whoever_is_told_to_install_extras_can():
    """The package is on no index, and the extras are those of pyproject.toml. Messages ask `errors.install`."""
    named = set()
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        if path.name != "errors.py":
            assert not re.search(r"pip install\s+['\"]?gapt-jax", text), path
        if path.suffix == ".py":
            assert not re.search(r"pip install [^\n]*\.\[", text), path
        found = re.findall(r"pip install\s+(?:-e )?'\.\[([a-z,]+)\]'|\binstall\(['\"](\w+)['\"]\)", text)
        named |= {extra for several in found for extra in "".join(several).split(",")}
    assert {"report", "live", "plan"} <= named <= PROJECT["optional-dependencies"].keys()


def test_extras_are_installed_from_the_checkout_or_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert errors.install("live") == "pip install -e '.[live]'"
    monkeypatch.chdir(tmp_path)
    assert errors.install("live") == f"pip install -e '{ROOT}[live]'"
    monkeypatch.setattr(errors, "_ROOT", tmp_path)
    assert errors.install("live") == "pip install 'gapt-jax[live]'"


def needed(extra: str) -> set[str]:
    """Packages of an extra, those of the extras that it names included."""
    found = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(r"gapt-jax\[([a-z,]+)\]", requirement)
        found |= set().union(*map(needed, own[1].split(","))) if own else {re.split("[^A-Za-z0-9_-]", requirement)[0]}
    return found


def test_the_converter_to_onnx_is_kept_out_of_the_environment_of_the_tests():
    assert "jax2onnx" in needed("onnx") and "jax2onnx" not in needed("dev") | needed("test") | needed("report")


@pytest.mark.skipif(onnx.is_installed(), reason="the converter to ONNX wants an older Orbax")
def test_the_orbax_of_the_tests_is_the_one_that_users_get():
    assert tuple(map(int, metadata.version("orbax-checkpoint").split(".")[:3])) >= (0, 12, 3)


@pytest.mark.parametrize("folder", ["runs", "bundles", "launch-gapt", ".venv", ".venv-onnx", ".venv-python3.13"])
def test_what_the_commands_write_is_ignored(folder):
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    done = subprocess.run(["git", "check-ignore", "-q", f"{folder}/x"], cwd=ROOT, check=False)
    assert done.returncode == 0
