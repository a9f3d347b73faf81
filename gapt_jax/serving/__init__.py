"""Bundles behind HTTP: whole melodies and sessions that go on frame by frame."""
