"""Generated tables: published systems, champions, README."""
