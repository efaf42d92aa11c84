"""One file a page, layout only; every number shown is computed in zoo."""
