"""Chooses a candidate and ranks for each table, and computes a lower bound on the time of any plan."""
