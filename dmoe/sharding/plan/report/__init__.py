"""A plan for people: pages, tables, what differs from another one."""
