"""Parts on disk, shards, the manifest and the output folder."""
