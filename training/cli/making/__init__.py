"""Make models from recipes, and adapt them."""
