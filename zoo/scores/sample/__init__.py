"""Samples: the kinds that they can hold, and the prior shares that answers take into account."""
