"""How tasks run: by threads, or by Ray's workers."""
