"""List the recipes."""

from __future__ import annotations

import argparse
import json

from training.cli.common import add_json
from training.recipe import load_recipe, recipe_ids
from zoo.cli.common import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser, "a list")


def run(options: argparse.Namespace) -> int:
    """Print one line per recipe, or a JSON list."""
    from training.recipe.overview import recipe_overview

    rows = [recipe_overview(load_recipe(name)) for name in recipe_ids()]
    if options.json:
        print(json.dumps(rows))
        return OK
    for row in rows:
        size = f"{row['parameters']:,}" if row["parameters"] is not None else "–"
        print(f"{row['id']:27} {row['system'] or '–':3} {row['task']:28} {size:>12}  {row['title']}")
    return OK
