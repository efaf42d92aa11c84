"""Parts of Data: audit reports and their views."""
