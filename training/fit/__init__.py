"""Fitting a recipe's weights."""
