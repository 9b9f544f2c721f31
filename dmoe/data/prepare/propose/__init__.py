"""Proposes a schema for a raw log from a sample of its rows (`dmoe schema`)."""
