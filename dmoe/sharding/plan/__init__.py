"""Sharding plans: the plan file, the shards of this job, checks, reports, comparison and migration."""
