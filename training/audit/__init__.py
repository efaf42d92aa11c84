"""Audits of data sets: one pass of measurements over the pictures, then what follows from them.

The package can be called: `training.audit(data, out)` is the command `audit` as a function.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Audit(ModuleType):
    """This package, callable as the function `training.api.audit`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("training.api").audit(*arguments, **options)


sys.modules[__name__].__class__ = _Audit
