"""Tokens, which are byte strings or integers: spans, hashes, dictionary encoding, ids, buckets and crosses."""
