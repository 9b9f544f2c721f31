"""Assigns rows to splits, and samples negatives."""
