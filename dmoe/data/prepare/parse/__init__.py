"""Pieces of a log -> blocks of rows: typed text, quoted text, JSON lines and parquet."""
