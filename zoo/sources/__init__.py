"""Where entries, examples and training runs come from."""
