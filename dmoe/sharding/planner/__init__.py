"""Makes sharding plans: the cluster's description, the options of each table, their costs, and the search."""
