"""Training of the detector that finds cells in a field."""
