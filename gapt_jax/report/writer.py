"""`gapt report`: reads run folders and ablations, writes report.html, PNG figures, results.csv and results.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gapt_jax.errors import UserError, install
from gapt_jax.evaluation import results
from gapt_jax.report import page, tables
from gapt_jax.report.reading import read_study
from gapt_jax.report.tables import Results
from gapt_jax.runtime.files import strict_json, write_atomic


def write_report(folders: Sequence[Path], out: Path) -> list[Path]:
    """Writes the report of these runs and ablations into `out` and returns the files, the page first.

    Runs of one arm are its seeds. Nothing is written before everything was read and drawn.
    """
    return write_results(read_results(folders), folders, out)


def read_results(folders: Sequence[Path]) -> Results:
    """What these runs and ablations found."""
    study = read_study([Path(folder) for folder in folders])
    systems = results.collect(study)
    return Results(study, systems, results.compare(study, systems))


def write_results(found: Results, folders: Sequence[Path], out: Path) -> list[Path]:
    """The same for results that `read_results` has read from these folders."""
    try:
        import jinja2  # noqa: F401

        from gapt_jax.report import figures
    except ImportError as error:
        raise UserError(f"the report needs matplotlib and jinja2: {install('report')}") from error
    drawn, rolls = list(figures.draw_all(found)), list(found.study.domain.pages().pictures(found.study))
    files: dict[str, str | bytes] = {
        "report.html": page.render_report(found, drawn, rolls, page.report_command(folders, str(out))),
        "results.json": strict_json(tables.to_json(found), indent=1) + "\n",
        "results.csv": tables.to_csv(found),
        **{f"{figure.name}.png": figure.png for figure in [*drawn, *rolls]},
    }
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]
