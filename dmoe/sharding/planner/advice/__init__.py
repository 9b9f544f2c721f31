"""Advice on clusters and configs: changes that make a model fit, and sweeps over clusters and batch sizes."""
