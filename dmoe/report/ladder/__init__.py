"""A ladder: variants of one config, trained over seeds, and what their figures support."""
