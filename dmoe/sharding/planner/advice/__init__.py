"""What else could be planned: changes that make a model fit, and grids of clusters and batches."""
