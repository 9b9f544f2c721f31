"""Prepares a data set from a raw log that a schema describes (`dmoe preprocess`), and proposes a schema for a log (`dmoe schema`)."""
