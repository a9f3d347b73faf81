"""``python -m gapt_jax`` is the command ``gapt``."""

from gapt_jax.commands.main import main

if __name__ == "__main__":
    main()
