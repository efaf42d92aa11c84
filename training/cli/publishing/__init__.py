"""Give models and the app to others."""
