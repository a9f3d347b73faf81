"""The command line: `main` has the parser, and every other module one command or a few that belong together."""

from gapt_jax import tasks as tasks  # by whose settings runs are read
