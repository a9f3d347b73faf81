"""The network of a bundle, built anew from its settings and weights: what is compiled in it expires, these do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from gapt_jax import models as model_library
from gapt_jax.config import ModelsConfig, TransformerConfig, from_dict
from gapt_jax.errors import UserError
from gapt_jax.export.functions import SCALE, Functions, Weights, flatten
from gapt_jax.export.manifest import CONFIG, VOCABULARY
from gapt_jax.export.verify import WEIGHTS, Refused, read_json, read_safetensors
from gapt_jax.models import Model
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import Vocabulary, read_vocabulary


@dataclasses.dataclass(frozen=True)
class Playing:
    """A policy of a bundle, without its weights."""

    config: TransformerConfig
    vocabulary: Vocabulary
    frames: int

    @property
    def length(self) -> int:
        """Tokens of a session: BOS, then two a frame."""
        return 1 + 2 * self.frames

    @property
    def network(self) -> Model:
        models = ModelsConfig(policy=self.config, compute_dtype="float32")
        return model_library.build(models, self.vocabulary.size).policy

    @property
    def functions(self) -> Functions:
        return Functions(self.network, Accompaniment(self.vocabulary), self.config.depth, self.length)


def read_playing(folder: Path) -> Playing:
    """What the settings of a bundle describe, which `manifest.read_manifest` has checked."""
    settings = read_json(folder / CONFIG)
    vocabulary = read_vocabulary(folder / VOCABULARY)
    return Playing(from_dict(TransformerConfig, settings["policy"]), vocabulary, settings["max_frames"])


def read_weights(folder: Path, playing: Playing) -> Weights:
    """The weights as they are stored. Raises UserError where they are not those of the network that the settings
    describe, or no numbers."""
    try:
        weights = read_safetensors(folder / WEIGHTS)
    except Refused as reason:
        raise UserError(str(reason)) from None
    fits = playing.config.depth <= len(weights)  # else even the shapes of the network would take long
    if fits:
        network = flatten(jax.eval_shape(playing.network.init, jax.random.key(0)))
        expected = {name: array.shape for name, array in network.items()}
        scales = {name + SCALE: shape[-1:] for name, shape in expected.items() if name + SCALE in weights}
        fits = {name: array.shape for name, array in weights.items()} == expected | scales
    if not fits:
        raise UserError(f"{folder / WEIGHTS} does not hold the network of {folder / CONFIG}: copy the bundle again")
    if not all(jnp.isfinite(array).all() for array in weights.values()):
        raise UserError(f"{folder / WEIGHTS} holds weights that are not finite: export the policy again")
    return weights
