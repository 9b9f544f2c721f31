"""Optimizers, the schedule of their learning rates, and the average of the weights."""
