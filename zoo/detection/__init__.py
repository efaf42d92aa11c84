"""Cells of a field: finding, matching and counting them."""
