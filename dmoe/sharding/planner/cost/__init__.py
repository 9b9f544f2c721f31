"""Cost of a plan: the candidates of each table, their time and memory, and the predicted training step."""
