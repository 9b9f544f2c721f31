"""From shards to batches: columns, the order of an epoch, and reading ahead."""
