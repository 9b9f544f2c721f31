"""Choosing a candidate and ranks for every table, and a bound on how good a choice can be."""
