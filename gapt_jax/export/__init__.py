"""Serving bundles: weights and compiled functions, and the proof that they play as the policy does."""
