"""Parts of Explain: maps, and what was asked for."""
