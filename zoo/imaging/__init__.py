"""From bytes to the tensor a network sees."""
