"""Parts of Compare: scored models, their matrices and tabs."""
