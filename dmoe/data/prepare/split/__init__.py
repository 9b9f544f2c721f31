"""Which split a row goes to, and which negatives are left out."""
