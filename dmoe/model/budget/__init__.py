"""What a model costs before it is trained, and controls of equal cost."""
