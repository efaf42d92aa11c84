"""Measure what models can do, and set their limits."""
