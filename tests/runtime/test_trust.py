"""Code is loaded only from files and folders that nobody else can change."""

import os
import time

import jax
import pytest

from gapt_jax.runtime import devices, native, trust

STRANGER = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home" / ".cache" / "gapt-jax"


def spoil(path, how):
    if how == "owner":
        os.chown(path, STRANGER, STRANGER)
    else:
        path.chmod(path.stat().st_mode | {"group": 0o020, "all": 0o002}[how])


WAYS = [pytest.param("owner", marks=as_root), "group", "all"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("place", ["file", "folder", "above"])
def test_what_others_own_or_write_is_told_apart(tmp_path, place, how):
    folder = trust.private_folder(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700 == folder.parent.stat().st_mode & 0o777
    file = folder / "file"
    file.write_text("")
    file.chmod(0o600)
    assert trust.fault_of(file) == ""
    spoiled = {"file": file, "folder": folder, "above": folder.parent}[place]
    spoil(spoiled, how)
    assert str(spoiled) in trust.fault_of(file)


def test_a_folder_like_tmp_may_lie_above_but_not_hold_the_file(tmp_path):
    (tmp_path / "a").mkdir(mode=0o700)
    tmp_path.chmod(0o1777)
    assert trust.fault_of(tmp_path / "a") == ""
    assert trust.fault_of(tmp_path) != ""


def test_a_link_leads_to_where_it_leads(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert "can write" in trust.fault_of(tmp_path / "link")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("place", ["library", "native", "gapt-jax"])
def test_a_planted_library_is_not_loaded(cache, tmp_path, monkeypatch, place, how):
    quick = tmp_path / "quick++"  # writes something into the file that is named last
    quick.write_text('#!/bin/sh\nfor last; do :; done\n[ "$last" = --version ] || echo library > "$last"\n')
    quick.chmod(0o755)
    monkeypatch.setenv("CXX", str(quick))
    library = native.compiled()
    assert library.parent == cache / "native" and library.parent.stat().st_mode & 0o777 == 0o700
    spoil({"library": library, "native": cache / "native", "gapt-jax": cache}[place], how)
    reason = native.load.__wrapped__()
    assert "is not safe" in reason and "remove" in reason and "\n" not in reason


def test_a_compiler_that_hangs_or_cannot_be_read_does_without_the_kernel(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "g++ '")
    assert "CXX=g++ ' is no command (No closing quotation)" in native.load.__wrapped__()
    hanging = tmp_path / "hanging++"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("CXX", str(hanging))
    monkeypatch.setattr(native, "VERSION_SECONDS", 1)
    started = time.monotonic()
    assert native.load.__wrapped__() == f"{hanging} took longer than 1 s over its version"
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("how", WAYS)
def test_programs_are_not_read_from_a_folder_of_others(cache, monkeypatch, capsys, how):
    kept = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: kept.append(value))
    devices._keep_programs.__wrapped__(None)
    assert kept == [str(cache / "xla")] and (cache / "xla").stat().st_mode & 0o777 == 0o700
    spoil(cache / "xla", how)
    devices._keep_programs.__wrapped__(None)
    assert len(kept) == 1 and "compiled programs are not kept" in capsys.readouterr().err
    devices._keep_programs.__wrapped__(str(cache / "xla"))
    assert len(kept) == 1 and "is used all the same" in capsys.readouterr().err
