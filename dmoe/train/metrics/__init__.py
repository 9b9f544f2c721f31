"""Streaming, mergeable metrics: what a rank adds up, the ranks' sum is the whole evaluation set's."""
