"""Makes entries for the zoo: data, splits, recipes, fitting, evaluating. Imports zoo, never pages."""
