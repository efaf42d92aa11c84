"""Review of found cells by a reader: kinds to give, decisions, counts, reports and session files."""
