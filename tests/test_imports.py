"""Who may import whom: the layers, wherever the import stands, at the top of a module, in a function or by a string."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_MUSIC = {"types", "masked", "prng", "settings", "config", "errors", "task"}
CORE = NO_MUSIC | {"models", "algorithm", "runtime"}
LOWER = CORE | {"vocabulary", "chords", "midi"}
# What each part of gapt_jax may import of it, besides itself. The core knows no task; `algorithm` gets no runtime.
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in ("errors", "chords", "types", "masked", "prng")},
    "settings": {"errors"},
    "config": {"settings", "task"},
    "overrides": {"config", "settings"},
    "task": {"types", "errors"},
    "vocabulary": {"chords", "task", "errors"},
    "midi": {"chords"},
    "models": NO_MUSIC,
    "algorithm": NO_MUSIC | {"models"},
    "runtime": NO_MUSIC | {"models", "algorithm"},
    "evaluation": CORE,
    "report": CORE | {"evaluation"},
    "training": CORE | {"evaluation", "overrides"},
    "tasks": LOWER | {"evaluation", "report", "training"},
    "export": LOWER | {"training", "tasks"},
    "serving": LOWER | {"export"},
    "study": LOWER | {"evaluation", "report"},
    "live": LOWER | {"evaluation", "training", "export", "tasks"},
    "benchmark": LOWER | {"evaluation", "training", "export", "live", "tasks"},
    "commands": LOWER
    | {"overrides", "evaluation", "report", "training", "tasks", "export", "serving", "study", "live", "benchmark"},
    "__main__": {"commands"},
}
# What the packages may import of each other; of gapt_jax a part, or one module of it.
PACKAGES = {
    "gapt_jax": set(),
    "gapt_jax.commands": {"experiments", "data_pipeline", "launch"},
    "data_pipeline": {f"gapt_jax.{name}" for name in ("vocabulary", "types", "chords", "midi", "errors")}
    | {"gapt_jax.runtime.locks"},  # of the standard library alone: it knows no devices and no logger
    "experiments": {f"gapt_jax.{name}" for name in ("config", "settings", "errors", "tasks")},
    "launch": {f"gapt_jax.{name}" for name in (*LOWER, "overrides", "training", "tasks")} | {"experiments"},
}
# Imports upwards, each with its reason: a task opens the data of its experiments.
EXCEPTIONS = {(f"gapt_jax/tasks/{task}/domain.py", "data_pipeline") for task in ("accompaniment", "turn_taking")}
LOADS_BY_NAME = {"experiments/__init__.py"}  # imports what a string holds that is not written there
STANDS_ALONE = ROOT / "gapt_jax/export/verify"  # works as a copy elsewhere too, and so imports nothing of gapt_jax
WITHOUT_MUSIC = ("algorithm", "models", "training", "evaluation", "report", "runtime")
INPUT_OUTPUT = {
    "pathlib", "os", "io", "json", "shutil", "tempfile", "logging", "subprocess", "sys",
    "orbax", "tensorboardX", "rich",
}  # fmt: skip
FOLDERS = ("data_pipeline", "experiments", "launch")  # stand beside gapt_jax, which has links to them
COMPUTED = "?"  # stands for the name of a module that is not written as a literal


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports, ``from a import b`` as ``a.b``, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.parent == STANDS_ALONE, f"{path} imports relatively"
            names |= {f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            name = node.args[0]
            names.add(name.value if isinstance(name, ast.Constant) else COMPUTED)
    return names


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def package_of(path: Path) -> str:
    *folders, _ = path.relative_to(ROOT).parts
    return "gapt_jax.commands" if folders[:2] == ["gapt_jax", "commands"] else folders[0]


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "gapt_jax").parts[0].removesuffix(".py")


def upwards(path: Path) -> set[str]:
    """Packages, and parts or modules of gapt_jax, that a file imports though its own package may not."""
    package = package_of(path)
    own, allowed = package.partition(".")[0], PACKAGES[package]
    found = set()
    for name in imports(path):
        parts = name.split(".")
        top, *_ = parts = parts[1:] if parts[1:] and parts[1] in FOLDERS else parts
        if top == own or top not in PACKAGES:
            continue
        if top == "gapt_jax":
            if not allowed & {".".join(parts[:n]) for n in (2, 3)}:
                found.add(".".join(parts[:3]))
        elif top not in allowed:
            found.add(top)
    return found


def test_the_layers_have_an_order():
    order = [*graphlib.TopologicalSorter(ALLOWED).static_order()]
    assert order[-2:] == ["commands", "__main__"]
    assert {part_of(path) for path in modules("gapt_jax")} == {*order, "__init__"}


def test_packages_import_only_the_ones_below():
    files = [path for package in ("gapt_jax", "data_pipeline", "experiments", "launch") for path in modules(package)]
    found = {(path.relative_to(ROOT).as_posix(), name) for path in files for name in upwards(path)}
    assert found == EXCEPTIONS  # no more, and none that is not used any more


def test_parts_of_gapt_jax_import_downwards():
    for path in modules("gapt_jax"):
        if part_of(path) == "__init__":
            assert not imports(path)
            continue
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("gapt_jax.")}
        assert parts - {"__version__", part_of(path), *FOLDERS} <= ALLOWED[part_of(path)], path


def test_the_folders_beside_gapt_jax_are_imported_through_it():
    """Under their own names they would be loaded twice, with classes that differ, and no wheel installs those names."""
    for path in (path for folder in ("gapt_jax", *FOLDERS, "tests", "docs") for path in modules(folder)):
        assert not {name.partition(".")[0] for name in imports(path)} & {*FOLDERS}, path


def test_the_folder_that_proves_bundles_stands_alone():
    for path in modules("gapt_jax/export/verify"):
        assert not {name.partition(".")[0] for name in imports(path)} & {"gapt_jax"}, path


def test_only_experiments_are_loaded_by_a_name_that_is_given():
    found = {path for package in ("gapt_jax", "data_pipeline", "experiments", "launch") for path in modules(package)}
    assert {path.relative_to(ROOT).as_posix() for path in found if COMPUTED in imports(path)} == LOADS_BY_NAME


def test_the_core_knows_no_music():
    """None of these words, docstrings and comments included."""
    files = [
        path for part in WITHOUT_MUSIC for path in (ROOT / "gapt_jax" / part).rglob("*.*") if path.suffix != ".pyc"
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search("melody|chord|vocabulary", line)
    ]
    assert len(files) > 50 and not found


def test_algorithm_and_metrics_do_no_input_or_output():
    for path in [path for part in ("algorithm", "models", "evaluation") for path in modules(f"gapt_jax/{part}")]:
        assert not {name.partition(".")[0] for name in imports(path)} & INPUT_OUTPUT, path
        assert not any(name.startswith("gapt_jax.runtime") for name in imports(path)), path


def test_imports_sees_functions_and_strings(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import a.b\nif x:\n    from c import d\nclass E:\n    import e\n"
        "def f():\n    import g\n    importlib.import_module('h.i')\n    importlib.import_module(x)\n"
    )
    assert imports(path) == {"a.b", "c.d", "e", "g", "h.i", COMPUTED}


@pytest.mark.parametrize(
    ("place", "line", "found"),
    [
        ("gapt_jax/live/a.py", "from gapt_jax.experiments import load", {"experiments"}),
        ("gapt_jax/commands/a.py", "from gapt_jax.experiments import load", set()),
        ("data_pipeline/a.py", "from gapt_jax.runtime import mesh", {"gapt_jax.runtime.mesh"}),
        ("data_pipeline/a.py", "from gapt_jax.runtime.locks import in_turn", set()),
        ("launch/a.py", "import gapt_jax.commands.main", {"gapt_jax.commands.main"}),
        ("launch/a.py", "from gapt_jax.data_pipeline import loader", {"data_pipeline"}),
    ],
)
def test_upwards_sees_what_it_should(place, line, found, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(line)
    assert upwards(tmp_path / place) == found
