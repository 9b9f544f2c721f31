"""What is counted before rows are written: tokens, and the moments of numbers; vocabularies and the sizes of hashed ids."""
