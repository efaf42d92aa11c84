"""Training data: reading, splitting, cleaning."""
