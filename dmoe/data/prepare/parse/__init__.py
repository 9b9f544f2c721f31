"""Parsers: turn pieces of a log into blocks of rows. One for typed text, one for quoted text, one for JSON lines, one for parquet."""
