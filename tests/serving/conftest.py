"""One bundle of a small random policy, and its server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gapt_jax.export import bundle
from gapt_jax.runtime.console import Console
from tests.export.bundles import random_policy

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("serving") / "bundle"
    bundle.write(random_policy(), out, Console(json_mode=False), with_onnx=False)
    return out


@pytest.fixture(scope="module")
def client(bundle_folder: Path) -> Iterator[object]:
    from starlette.testclient import TestClient

    from gapt_jax.serving.player import Player
    from gapt_jax.serving.server import make_app

    with TestClient(make_app([Player(bundle_folder)], sessions=8)) as found:
        yield found
