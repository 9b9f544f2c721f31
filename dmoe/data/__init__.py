"""Raw log -> shards -> batches."""
