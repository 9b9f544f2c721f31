"""Training: the loop, optimizers, schedules, guards, run directories and the Python API."""
