"""Generative Adversarial Post-Training (GAPT) of real-time sequence policies."""

__version__ = "0.1.0"
