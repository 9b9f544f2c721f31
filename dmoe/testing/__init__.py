"""Synthetic logs with a planted truth, for tests, benchmarks and trials."""
