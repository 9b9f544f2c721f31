"""A data set on disk and its batches: manifest, shards, epoch order, reader."""
