"""Plots and printable sheets."""
