"""Tests of what a training begins with."""
