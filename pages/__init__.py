"""Pages of the app, one file each: layout only. What several need is in `pages.parts`."""
