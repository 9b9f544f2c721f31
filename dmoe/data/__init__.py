"""The way of the data: a raw log is prepared into a data set of shards, and a reader turns the shards into batches."""
