"""Audits of data sets: one pass of measurements over the pictures, then what follows from them."""
