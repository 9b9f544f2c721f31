"""A plan: made, explained, compared, kept, checked; and the model sharded by it."""
