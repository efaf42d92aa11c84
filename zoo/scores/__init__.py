"""Metrics, intervals, calibration and significance."""
