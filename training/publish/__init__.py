"""Writing entries and publishing them."""
