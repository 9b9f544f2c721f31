"""How a sharding plan is made: what is known of the cluster, what a table can be, what it costs, and the search."""
