"""Parts that pages share: layout, session state, pickers, galleries, plots, tables and wording."""
