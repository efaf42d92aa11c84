"""What a published model is, where it lives, how it is run and judged. Knows nothing of pages or training."""
