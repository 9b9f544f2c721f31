"""Synthetic logs with a known truth, small models and runs, and fault injection, for tests, benchmarks and trials."""
