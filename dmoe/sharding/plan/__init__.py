"""A sharding plan as a file and as this job's shards: reading, checking, showing, comparing, migrating."""
