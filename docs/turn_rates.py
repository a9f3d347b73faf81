"""How long turns last, how often something begins and how many say nothing: the limits of the rules of turn-taking.

python docs/turn_rates.py FOLDER   (of RTTM files; only those of the training split are read)
"""

import sys
from pathlib import Path

import numpy as np

from gapt_jax.data_pipeline.conversations.folder import read
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.tasks.turn_taking.rules import ONSET_LIMIT, TURN_LIMIT, WINDOW
from gapt_jax.tasks.turn_taking.stretches import spans

EXCERPT = 128  # frames


def main(folder: Path) -> None:
    conversations = [c for c in read(folder).conversations if c.split == "train"]
    agents = [tokens.encode(*c.frames(tokens.FRAME_SECONDS))[1] for c in conversations]
    turns = [spans(tokens.kind_of(actions) == tokens.TURN) for actions in agents]
    lengths = np.concatenate([found.end - found.start for found in turns])
    print(f"{len(conversations)} conversations, {len(lengths)} turns; 95 % last at most "
          f"{np.quantile(lengths, 0.95):g} frames (the limit is {TURN_LIMIT})")  # fmt: skip
    excerpts = np.concatenate(
        [
            actions[:, : actions.shape[1] // EXCERPT * EXCERPT].reshape(-1, EXCERPT)
            for actions in agents
            if actions.shape[1] >= EXCERPT
        ]
    )
    begins = (tokens.kind_of(excerpts) >= 0) & ((excerpts - tokens.TURN_ONSET) % 2 == 0)
    known = np.cumsum(np.pad(begins, ((0, 0), (WINDOW, 0))), axis=1)
    most = (known[:, WINDOW:] - known[:, :-WINDOW]).max(axis=1)
    silent = ~tokens.speaks(excerpts).any(axis=1)
    print(f"{len(excerpts)} excerpts of {EXCERPT * tokens.FRAME_SECONDS:g} s; in 99 % at most "
          f"{np.quantile(most, 0.99):g} stretches begin within 10 s (the limit is {ONSET_LIMIT}); "
          f"in {silent.mean():.1%} nothing is said")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).exists():
        sys.exit("usage: python docs/turn_rates.py FOLDER")
    main(Path(sys.argv[1]))
