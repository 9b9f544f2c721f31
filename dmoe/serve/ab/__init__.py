"""A/B tests of scorers: the assignment of units to arms, and the exposure log."""
