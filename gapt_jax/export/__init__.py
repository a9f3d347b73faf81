"""Parameters that leave the lab: a bundle of weights and compiled functions, and the proof that it is the policy."""
