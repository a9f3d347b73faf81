"""The tasks of this package. Importing it makes their settings known, by which stored runs are read."""

import gapt_jax.tasks.accompaniment.config
import gapt_jax.tasks.turn_taking.config  # noqa: F401
