"""From raw rows to the ids and numbers that a scorer takes."""
