"""Evaluation of trained entries."""
