"""The windows of a growing log: which files belong to one, and their data set."""
