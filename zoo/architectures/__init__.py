"""Networks of our own, registered with timm by importing this package. A new one is a file in this folder."""

import importlib
import pkgutil

from timm.models import is_model, model_entrypoint

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def is_own(architecture: str) -> bool:
    """Whether a network is one of ours, which timm knows only after this package was imported."""
    return is_model(architecture) and model_entrypoint(architecture).__module__.startswith(f"{__name__}.")
