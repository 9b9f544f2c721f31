"""Loop, optimisers, checkpoints, metrics, guards."""
