"""The model: multi-embedding, experts, gate, tower, and the correlation loss of the experts."""
