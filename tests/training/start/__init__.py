"""Tests of the first steps of a training."""
