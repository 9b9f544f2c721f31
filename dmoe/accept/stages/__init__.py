"""The stages of an acceptance."""
