"""Random changes of training pictures, one registered function for each key of a recipe's [augment] table.

To add an augmentation, write one function decorated with `registry.augmentation`, in a new or existing module of this
folder: recipes then accept its key, and `training_transform` applies it.
"""

from importlib import import_module
from pkgutil import iter_modules

from training.fit.augment.registry import AUGMENTATIONS, Augmentation, Context, Phase, augmentation
from training.fit.augment.transform import training_transform

__all__ = ["AUGMENTATIONS", "Augmentation", "Context", "Phase", "augmentation", "training_transform"]

for _module in sorted(found.name for found in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
