"""The finished stages that a run keeps for itself."""

from gapt_jax.training import run_folder
from tests.buckets import only_files_are_renamed


def test_stages_are_kept_whole_though_no_folder_can_be_renamed(tmp_path, monkeypatch):
    stage, kept = tmp_path / "stages" / "policy-1", tmp_path / "run" / "upstream" / "policy-1"
    for folder, name in ((stage, "whole"), (kept, "half")):  # kept: what an interrupted attempt has left
        (folder / "params" / "d").mkdir(parents=True)
        (folder / "params" / "d" / name).write_text(name)
    (stage / "done.json").write_text("{}")
    tried = only_files_are_renamed(monkeypatch, tmp_path)
    run_folder.keep_stages(tmp_path / "run", [stage])
    files = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert files == ["done.json", "params/d/whole"] and not tried
    (stage / "done.json").unlink()  # a second time nothing is read
    run_folder.keep_stages(tmp_path / "run", [stage])
