"""Modules that are imported when they are first used, so that help, refusals and the first page come at once.

A module keeps a stand-in for another one:

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazy_module("torch")

Type checkers and readers see an ordinary import. Names that a module needs while it is itself imported, such as base
classes, cannot be lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


class LazyModule:
    """Stand-in for a module: the first attribute that is asked for imports it. Safe to share between threads."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"<lazy module {self._name!r}>"


def lazy_module(name: str) -> LazyModule:
    """Make a stand-in for the module called `name`, as `import_module` takes it."""
    return LazyModule(name)


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Make a package's `__getattr__` (PEP 562), which imports a public name from its module when it is first used.

    Args:
        package: `__name__` of the package.
        modules: Module of each name.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get
