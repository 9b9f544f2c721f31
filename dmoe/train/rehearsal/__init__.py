"""Runs a few steps on this machine under a plan that was made for a cluster."""
