"""The tasks of this package. Importing it makes their settings known, by which stored runs are read."""

from gapt_jax.tasks.accompaniment import config as config
