"""A scorer on disk: its files, its export, deltas, checks, and its card."""
