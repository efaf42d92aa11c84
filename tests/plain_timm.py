"""View of a user who has only timm and huggingface_hub: run by a test in a new process.

    python -I tests/plain_timm.py PICTURE NAMESPACE/NAME@REVISION…

Prints a JSON list of probabilities, one list a repository. Every module of a package that installing these two would
not bring is refused, HemaZoo's own with them.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, ClassVar

WANTED = ("timm", "huggingface_hub")


def brought(names: tuple[str, ...]) -> set[str]:
    """Distributions that come with `names`, themselves included, in lower case with dashes."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        left += [re.split(r"[\s;<>=!~\[(]", need)[0] for need in needs if "extra ==" not in need]
    return found


class OnlyThese(PathFinder):
    """Finds on sys.path what these packages bring, and the standard library."""

    refused: ClassVar[set[str]] = set()

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """None for what would not be installed."""
        return None if fullname.split(".", maxsplit=1)[0] in cls.refused else super().find_spec(fullname, path, target)


def keep_to(names: tuple[str, ...]) -> None:
    """From now on no other package than `names` and what they bring can be imported."""
    here = brought(names)
    for module, owners in metadata.packages_distributions().items():
        if not {re.sub(r"[-_.]+", "-", name).lower() for name in owners} & here:
            OnlyThese.refused.add(module)
    OnlyThese.refused |= {"zoo", "training", "pages", "tests"}
    sys.meta_path[:] = [OnlyThese if finder is PathFinder else finder for finder in sys.meta_path]


def main() -> None:
    """Classify one picture by each repository."""
    keep_to(WANTED)
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    picture, found = Image.open(sys.argv[1]).convert("RGB"), []
    for repo in sys.argv[2:]:
        # as a card tells it
        model = timm.create_model(f"hf-hub:{repo}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
        with torch.no_grad():
            shares = model(transform(picture)[None]).softmax(1)[0]
        found.append(dict(zip(model.pretrained_cfg["label_names"], shares.tolist(), strict=True)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
