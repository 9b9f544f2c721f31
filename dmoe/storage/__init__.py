"""Paths of every storage (local, S3 and fsspec), atomic writes, and locks."""
