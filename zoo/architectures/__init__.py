"""Our own networks, registered with timm when this package is imported. A new one is a file in this folder.

Every module here is imported, so that a file with a function decorated by timm's `register_model` is all it takes.
`_layers` holds what they share.
"""

import importlib
import pkgutil

from timm.models import is_model, model_entrypoint

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def is_own(architecture: str) -> bool:
    """Whether a network is one of ours, which timm knows only after this package was imported.

    Args:
        architecture: name by which timm creates it.
    """
    return is_model(architecture) and model_entrypoint(architecture).__module__.startswith(f"{__name__}.")
