"""Byte strings and integers as tokens: spans, hashes, codes of a dictionary, ids, buckets and crosses."""
