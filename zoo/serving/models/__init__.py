"""Loaded models: networks read from entries, kept in memory within a limit, and measured before."""
