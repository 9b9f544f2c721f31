"""A run's directory, and what is read from it and written to it."""
