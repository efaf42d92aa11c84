"""Fetch, check, split and convert data sets."""
