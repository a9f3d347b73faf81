"""Who may import whom (design §2), at module level: an import in a function is late on purpose."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"types", "masked", "prng", "vocabulary", "chords", "midi", "settings", "config", "errors"}
MODELS = BASE | {"models"}
LOWER = MODELS | {"algorithm", "runtime"}
# What each part of gapt_jax may import of it. `algorithm` gets no runtime: it knows no files, no logger.
ALLOWED = {
    "models": MODELS,
    "algorithm": MODELS | {"algorithm"},
    "runtime": LOWER,
    "evaluation": LOWER | {"evaluation"},
    "training": LOWER | {"evaluation", "training"},
    "export": LOWER | {"training", "export"},
    "serving": LOWER | {"export", "serving"},
    "live": LOWER | {"training", "export", "live"},
    "benchmark": LOWER | {"training", "export", "live", "benchmark"},
    "study": LOWER | {"evaluation", "study"},
    "commands": LOWER | {"evaluation", "study", "commands"},  # and more in functions, for the sake of start-up
    "__main__": {"commands"},
} | {name: BASE for name in BASE}
PACKAGES = {
    "gapt_jax": set(),
    "data_pipeline": {"gapt_jax"},
    "experiments": {"gapt_jax", "data_pipeline"},
    "launch": {"gapt_jax", "experiments"},
}
INPUT_OUTPUT = {
    "pathlib", "os", "io", "json", "shutil", "tempfile", "logging", "subprocess", "sys",
    "orbax", "tensorboardX", "rich",
}  # fmt: skip
REPORT = {
    "report", "reading", "page", "html", "player", "provenance", "figures", "curves", "results", "piano_roll", "tables",
}  # fmt: skip  # the other modules are metrics


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports when it is imported, ``from a import b`` as ``a.b``."""
    names: set[str] = set()
    for node in _module_level(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _module_level(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _module_level(child)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "gapt_jax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_the_ones_below(package):
    for path in modules(package):
        if package == "gapt_jax" and part_of(path) == "commands":
            continue  # on top of everything
        imported = {name.partition(".")[0] for name in imports(path)} & set(PACKAGES)
        assert imported <= PACKAGES[package] | {package}, path


def test_parts_of_gapt_jax_import_downwards():
    for path in modules("gapt_jax"):
        if part_of(path) == "__init__":
            assert not imports(path)
            continue
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("gapt_jax.")}
        assert parts - {"__version__"} <= ALLOWED[part_of(path)], path


def test_data_pipeline_knows_little_of_gapt_jax():
    for path in modules("data_pipeline"):
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("gapt_jax.")}
        assert parts <= {"vocabulary", "types", "chords", "midi", "errors", "prng"}, path


def test_algorithm_and_metrics_do_no_input_or_output():
    metrics = [path for path in modules("gapt_jax/evaluation") if path.stem not in REPORT]
    for path in modules("gapt_jax/algorithm") + modules("gapt_jax/models") + metrics:
        assert not {name.partition(".")[0] for name in imports(path)} & INPUT_OUTPUT, path
        assert not any(name.startswith("gapt_jax.runtime") for name in imports(path)), path


def test_imports_sees_what_runs_at_import_time(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("import a.b\nif x:\n    from c import d\nclass E:\n    import e\ndef f():\n    import g\n")
    assert imports(path) == {"a.b", "c.d", "e"}
