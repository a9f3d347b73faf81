"""Live play from a player's side: ``python -m tests.live.socket_timing DIR [--bpm 120 --lookahead 16 --ticks 500]``.

Serves a run or a bundle on this machine and plays random notes through a real socket. Prints one JSON object; exits 1
where a plan was late or a frame began without its chord.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from gapt_jax.live.client import measure, served
from gapt_jax.live.model import open_model
from gapt_jax.runtime.console import Console


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--bpm", type=float, default=120)
    parser.add_argument("--lookahead", type=int, default=16)
    parser.add_argument("--ticks", type=int, default=500)
    args = parser.parse_args()
    model = open_model(args.policy, Console())
    model.warm_up()
    with served([model]) as url:
        found = asyncio.run(measure(url, bpm=args.bpm, lookahead=args.lookahead, ticks=args.ticks))
    print(json.dumps(found))
    sys.exit(int(bool(found["late"] or found["underruns"])))


if __name__ == "__main__":
    main()
