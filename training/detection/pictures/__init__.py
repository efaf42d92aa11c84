"""Training pictures of a detector: fields, composites, close-ups and drawn ones, cut into crops with their targets."""
