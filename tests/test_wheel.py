"""What `pip install .` puts on a machine, and that the commands run from it in another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from gapt_jax.runtime import native
from tests import quick

ROOT = Path(__file__).parents[1]
FOLDERS = {"gapt_jax": "gapt_jax"} | {name: f"gapt_jax/{name}" for name in ("data_pipeline", "experiments", "launch")}


def run(*words: str | Path, cwd: Path) -> str:
    """What a command prints on stdout. Nothing of this checkout is on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XLA_FLAGS"] = quick.added_to(environment["XLA_FLAGS"])
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, so that nothing is built in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    run(sys.executable, "-m", "pip", *words, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of programs of an environment that has the wheel, and sees the packages of this one but not its `.pth`
    files, which name the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    programs = folder / "bin"
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))
    to = ("--python", programs / "python", "install", "--quiet", "--no-deps", "--ignore-installed")
    run(sys.executable, "-m", "pip", *to, wheel, cwd=folder)
    return programs


def test_the_wheel_has_one_top_level_name(wheel):
    assert {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()} == {
        "gapt_jax",
        "gapt_jax-0.1.0.dist-info",
    }


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    """Code, and what it reads: the page, the Dockerfile, the source of the kernel."""
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("gapt_jax/")}
    needed = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert held == needed
    assert {"gapt_jax/live/page/index.html", "gapt_jax/launch/docker/Dockerfile", "gapt_jax/runtime/decode.cc"} <= held


@pytest.mark.slow
def test_the_commands_run_from_the_wheel(installed, tmp_path):
    """In a folder with packages of the names that the checkout has; they are not ours and not imported."""
    for name in FOLDERS.keys() - {"gapt_jax"}:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('of somebody else')")
    told = run(installed / "python", "-c", "import gapt_jax; print(gapt_jax.__file__)", cwd=tmp_path)
    assert Path(told.strip()).is_relative_to(installed.parent)
    kernel = "from gapt_jax.runtime import native; print(native.load())"
    assert run(installed / "python", "-c", kernel, cwd=tmp_path) == f"{native.load()}\n"  # or why there is none
    run(installed / "gapt", "data", "list", cwd=tmp_path)
    run(installed / "gapt", "launch", "pod:v5e_64", "--on", "local", "--out", "out", "--dry-run", cwd=tmp_path)
    run(installed / "python", "-m", "gapt_jax.launch.preflight", "--help", cwd=tmp_path)
    run(installed / "gapt", "run", "smoke", "--stage", "policy", "--set", "pretrain.policy.steps=2", cwd=tmp_path)
