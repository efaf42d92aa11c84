"""Tests of zoo.systems."""
