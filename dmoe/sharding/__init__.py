"""Sharding plans: making, explaining, comparing, saving and checking them, and sharding the model with them."""
