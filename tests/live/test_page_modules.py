"""The page's modules that need no browser, run by Node: page.test.mjs."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import gapt_jax.live

TESTS = Path(__file__).with_name("page.test.mjs")
PAGE = Path(gapt_jax.live.__file__).with_name("page")


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js: apt-get install nodejs")
def test_the_modules_of_the_page(tmp_path):
    folder = shutil.copytree(PAGE, tmp_path / "page")
    (folder / "package.json").write_text(json.dumps({"type": "module"}))  # Node takes .js for another kind without it
    done = subprocess.run(
        ["node", "--test", str(TESTS)],
        env=os.environ | {"PAGE": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "# fail 0" in done.stdout, done.stdout + done.stderr
