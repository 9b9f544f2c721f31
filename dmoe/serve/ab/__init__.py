"""A/B tests of scorers: who is in which arm, and the log of what was answered."""
