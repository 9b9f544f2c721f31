"""One file a contender. Each has `build(case, rank)`, which gives a function that runs one step, batch after batch."""
