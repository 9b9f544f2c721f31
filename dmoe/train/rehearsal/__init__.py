"""A short run on this machine under a plan that was made for a cluster."""
