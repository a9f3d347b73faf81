"""XLA flags by which tiny programs, run once or twice, compile in a fifth of the time: without optimisation."""

from importlib import metadata

FLAGS = {"--xla_backend_optimization_level": "0"}
if tuple(map(int, metadata.version("jax").split(".")[:2])) < (0, 11):
    FLAGS["--xla_cpu_use_fusion_emitters"] = "false"  # 0.12 knows it no more; an unknown flag ends the process


def added_to(flags: str) -> str:
    """These flags after those of `flags`, but for what is set there already."""
    return " ".join([flags, *(f"{name}={value}" for name, value in FLAGS.items() if name not in flags)]).strip()
