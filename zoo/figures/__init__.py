"""Figures (plotly) and printable pages (matplotlib) for the app and for reports."""
