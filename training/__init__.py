"""Make entries for the zoo: data, splits, recipes, fitting, evaluation, publication. Imports zoo, never pages."""
