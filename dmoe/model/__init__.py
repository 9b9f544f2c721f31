"""Multi-embedding, experts, gate, tower and the correlation of the experts."""
