"""Starting training elsewhere: what fits where, what a platform needs to be told, and the same on this machine."""
