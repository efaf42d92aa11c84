"""Backbones from packages: weights that other projects distribute, fetched, converted and checked."""
