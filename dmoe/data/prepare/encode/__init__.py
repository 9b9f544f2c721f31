"""Blocks of rows -> typed columns, and which rows are malformed."""
