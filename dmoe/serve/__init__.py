"""Exports checkpoints as scorers, scores with them and serves them, without sharding and TorchRec."""
