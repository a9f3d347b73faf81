"""Triton's client and KServe's, unchanged. They need older packages than ours, so that they get an environment of
their own, in the folder of this one: it is made once."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gapt_jax.export.bundle import _melodies
from tests.export.bundles import FRAMES
from tests.serving.processes import running
from tests.serving.wire import INFER, MODEL, tensor

PACKAGES = ("tritonclient[http]==2.73.0", "kserve==0.21.0")


@pytest.fixture(scope="module")
def python():
    """The interpreter of an environment that has the two clients."""
    place = Path(sys.prefix) / "serving-clients"
    found, done = place / "bin" / "python", place / "installed"
    if not done.is_file() or done.read_text() != "\n".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        install = [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *PACKAGES]
        made = subprocess.run(install, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"{' and '.join(PACKAGES)} cannot be installed: {made.stderr.strip()[-200:]}")
        done.write_text("\n".join(PACKAGES))
    return found


@pytest.mark.slow
def test_unchanged_clients_play(bundle_folder, python):
    melody = _melodies(FRAMES)[0].tolist()
    with running("serve", bundle_folder) as server:
        body = {"inputs": [tensor("melody", [melody], data=melody)], "parameters": {"seed": 5}}
        chords, symbols = (output["data"] for output in httpx.post(server.url + INFER, json=body).json()["outputs"])
        program = Path(__file__).with_name("clients.py")
        command = [python, program, f"{server.host}:{server.port}", MODEL, json.dumps(melody)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("symbols") == symbols
    assert len(found) == 22 and all(played == chords for played in found.values()), found
