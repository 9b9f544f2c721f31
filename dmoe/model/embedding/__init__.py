"""Tables of the model: which there are, how a batch looks them up, and their first values."""
