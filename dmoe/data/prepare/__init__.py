"""A raw log -> a data set, for every log that a schema describes: `dmoe preprocess`, and `dmoe schema`, which proposes a schema."""
