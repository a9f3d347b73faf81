"""Records what training computes, or says whether it is still equal: python tests/golden/golden.py FOLDER

Runs `smoke` and a small run on real songs (``../shared/data/songs``, where it exists), both cut to seconds, on one and
on eight CPU devices, through `gapt run`. The first call writes FOLDER/recorded.json: every metric of every step,
evaluation.json, and a hash of each array of the last checkpoint (parameters, optimisers, and the replay: the tokens of
the latest rollouts). Each later call trains again and compares bit for bit. Bits depend on the processor and on the
versions, so that the recording is made anew on each machine and not committed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SONGS = ROOT.parent / "shared/data/songs"
STAGES = ("policy", "anchor", "contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative")
SHORT = [f"pretrain.{stage}.steps=6" for stage in STAGES] + ["algorithm.steps=10", "evaluation.every=5"]
SMALL = [f"models.{network}.{size}" for network in ("policy", "anchor", "reward", "discriminator") for size in
         ("dim=32", "depth=1", "heads=2", "head_dim=16")]  # fmt: skip
REAL = [
    *("data.songs=" + str(SONGS), 'data.mixture=[["nottingham",1.0]]', "data.out_of_domain=[]", "data.max_frames=64"),
    *("algorithm.batch_size=16", "algorithm.minibatch_size=8", "algorithm.discriminator.minibatch_size=8"),
    *("evaluation.songs=32", "evaluation.monitor_songs=16"),
]
RUNS = {"smoke": ["smoke", *SHORT], "real": ["small", *SHORT, *SMALL, *REAL]}
LEARNT = (
    "policy",
    "critic",
    "discriminator",
    "policy_optimizer",
    "critic_optimizer",
    "discriminator_optimizer",
    "replay",
)
ARRAYS = """
import hashlib, json, sys
import jax, numpy, orbax.checkpoint
tree = orbax.checkpoint.PyTreeCheckpointer().restore(sys.argv[1])
arrays = jax.tree_util.tree_leaves_with_path({name: tree[name] for name in sys.argv[2:]})
hashes = {jax.tree_util.keystr(path): hashlib.sha256(numpy.asarray(x).tobytes()).hexdigest() for path, x in arrays}
print(json.dumps(hashes))
"""


def train(name: str, devices: int, folder: Path) -> dict[str, Any]:
    """What the run named `name` computes on so many devices."""
    experiment, *settings = RUNS[name]
    run = folder / f"{name}-{devices}" / "run"
    shutil.rmtree(run.parent, ignore_errors=True)
    env = os.environ | {"NPROC": "16", "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "gapt_jax", "run", experiment, "--workdir", str(run)]
    command += [word for setting in settings for word in ("--set", setting)]
    with open(folder / f"{name}-{devices}.log", "w") as log:
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=log, stderr=log)
    steps = (path for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    last = max(steps, key=lambda path: int(path.name))
    read = [sys.executable, "-c", ARRAYS, str(last / "default"), *LEARNT]
    arrays = subprocess.run(read, env=env, check=True, capture_output=True, text=True).stdout
    logs = {str(path.relative_to(run.parent)): path for path in sorted(run.parent.rglob("metrics.jsonl"))}
    logs = {key.split("-")[0] if key.startswith("stages") else "post-training": path for key, path in logs.items()}
    return {
        "metrics": {key: [json.loads(line) for line in path.read_text().splitlines()] for key, path in logs.items()},
        "evaluation": json.loads((run / "evaluation.json").read_text())["systems"],
        "arrays": json.loads(arrays),
    }


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two recordings differ, a line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [
            key for key in dict.fromkeys([*old, *new]) if not any(word in key for word in ("latency", "_ms", "time"))
        ]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}/{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for n, pair in pairs for line in differences(*pair, f"{path}[{n}]")]
    return [] if old == new or (old != old and new != new) else [f"{path}: {old} before, {new} now"]


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in RUNS if name != "real" or SONGS.is_dir()]
    found = {f"{name} on {devices}": train(name, devices, folder) for name in names for devices in (1, 8)}
    recorded = folder / "recorded.json"
    if not recorded.exists():
        recorded.write_text(json.dumps(found, indent=1))
        print(f"recorded {', '.join(found)} in {recorded}")
        return 0
    lines = differences(json.loads(recorded.read_text()), json.loads(json.dumps(found)))
    print("\n".join([*lines[:20], f"... {len(lines)} differences"] if lines else ["equal"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
