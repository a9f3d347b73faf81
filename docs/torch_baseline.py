"""A supervised step of the policy at published size beside the same network in PyTorch eager, in turns.

python docs/torch_baseline.py TORCH_PYTHON [REPEATS]   (an interpreter with torch and x-transformers)

Both: 8 songs of 256 frames (512 tokens, and the end), V = 5,900, float32, all cores, cross-entropy of every token,
gradients clipped at norm 1, Adam with weight decay. Beside a busy process PyTorch's threads wait for each other:
compare on idle cores only. Printed: medians with and without dropout of 0.1, and PyTorch's time over ours.
"""

import json
import os
import statistics
import subprocess
import sys
import time

SONGS, TOKENS, VOCABULARY, STEPS = 8, 512, 5_900, 6


def ours(dropout: float) -> list[float]:
    import dataclasses

    import jax

    from gapt_jax import experiments
    from gapt_jax.algorithm import supervised
    from gapt_jax.benchmark.cases import Size
    from gapt_jax.benchmark.measure import fed_back, in_turns
    from gapt_jax.training import pretrain

    experiment = experiments.load("gapt")
    policy = dataclasses.replace(experiment.models.policy, dropout=dropout)
    networks = dataclasses.replace(experiment.models, policy=policy)
    size = Size.of("published", dataclasses.replace(experiment, models=networks), 235, "float32", SONGS)
    assert size.vocabulary.size == VOCABULARY and 2 * size.frames == TOKENS
    config = dataclasses.replace(experiment.pretrain.policy, batch_size=SONGS)
    fit = pretrain.Fit(supervised.policy_loss(size.spec.models), config, None, size.layout)
    state, batch = pretrain.init_fit(fit, size.spec.models.policy.init, 0), jax.device_put(size.batch(SONGS))
    program = pretrain.fit_step.trace(fit, state, batch).lower().compile()
    return in_turns({"step": fed_back(program, state, batch)}, STEPS)["step"]


def theirs(dropout: float) -> list[float]:
    import torch
    from x_transformers import Decoder, TransformerWrapper

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layers = Decoder(
        dim=512, depth=8, heads=8, attn_flash=True, rotary_pos_emb=True, rotary_emb_dim=32, attn_qk_norm=True,
        attn_qk_norm_dim_scale=True, use_simple_rmsnorm=True, ff_glu=True, ff_swish=True, attn_dropout=dropout,
        ff_dropout=dropout,
    )  # fmt: skip
    network = TransformerWrapper(
        num_tokens=VOCABULARY, max_seq_len=TOKENS + 2, attn_layers=layers, use_abs_pos_emb=False
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    tokens = torch.randint(0, VOCABULARY, (SONGS, TOKENS + 2))  # BOS, 512 tokens, EOS
    seconds = []
    for _ in range(STEPS + 3):
        began = time.perf_counter()
        logits = network(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds[3:]


def main() -> None:
    torch_python, repeats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    known: dict[tuple[str, float], list[float]] = {}
    one_device = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": one_device}
    for _ in range(repeats):
        for dropout in (0.0, 0.1):
            for name, python in (("ours", sys.executable), ("theirs", torch_python)):
                command = [python, __file__, "--child", name, str(dropout)]
                out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
                known.setdefault((name, dropout), []).extend(json.loads(out.splitlines()[-1]))
    for dropout in (0.0, 0.1):
        mine, torchs = (statistics.median(known[name, dropout]) for name in ("ours", "theirs"))
        print(f"dropout {dropout}: ours {mine:.2f} s, PyTorch {torchs:.2f} s, ratio {torchs / mine:.2f}")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        print(json.dumps({"ours": ours, "theirs": theirs}[sys.argv[2]](float(sys.argv[3]))))
    else:
        main()
