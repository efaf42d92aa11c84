"""Command line of the training module: `python -m training audit|split|fetch|train|evaluate|…`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from training import sweep
from training.audit.report import look_for_copies, write
from training.audit.report import run as run_audit
from training.evaluation import benchmarks as evaluate
from training.evaluation import crossval
from training.evaluation import explanations as explain_quality
from training.evaluation import html_report as comparison
from training.evaluation import leave_one_lab_out as left_out
from training.evaluation import ood as gate
from training.evaluation.features import feature_table, write_features
from training.fit.averaging import begun
from training.fit.batches import Arrays
from training.fit.checkpoint import CheckpointError
from training.fit.devices import LOGS, make_accelerator
from training.fit.imagenet import WeightsError
from training.fit.loop import FitError, TrainingStopped
from training.prepare import fetch
from training.prepare.splits import SCHEMES, Split, make_manifest, split_by, table_of, write_manifest
from training.publish import examples as publish_examples
from training.publish import hub as publish
from training.publish import space
from training.recipe import (
    PUBLISHED,
    SCRATCH,
    Recipe,
    RecipeError,
    load_recipe,
    recipe_ids,
)
from training.reproduce import champions, readme, results
from training.reproduce.rows import rows_of
from training.run import EMBEDDER, Job, Ready, make_ready, originals_of, overview, report, say, train, warn, with_labels
from zoo import adaptation, benchmarks
from zoo.attribution import METHODS, ExplanationError
from zoo.audits.reports import headlines
from zoo.benchmarks import scoring
from zoo.benchmarks.leaderboard import home_benchmark
from zoo.cache import cache_folder
from zoo.data import DataError, layouts, read_dataset
from zoo.data.configured import places
from zoo.entry import CONFIG, ID, Entry, EntryError, read_entry, summary
from zoo.files import write_text
from zoo.imaging.decode import ImageError
from zoo.scores.metrics import as_dict
from zoo.scores.temperature import AS_STORED
from zoo.serving.loaded import device_name, resolve_device
from zoo.serving.runtime import BusyError, Runtime, methods_for
from zoo.sources import runs
from zoo.sources.catalogue import BUILTIN, FolderSource, distinct_titles, get_entry, list_entries

TRAIN_HELP = """\
Fit a recipe, score its test split once and write a whole zoo entry, or none.

With pictures of your own, in one folder a class:

  my-cells/basophil/1.png, my-cells/basophil/2.png, …, my-cells/monocyte/1.png, …

  python -m training train starter --data my-cells --out my-zoo/my-model
  HEMAZOO_ZOO=my-zoo make demo          shows it in the app

It can be stopped at any moment and gone on with by the same command and --resume. On several
devices or machines: accelerate launch -m training train … (see `accelerate config`)."""
EVALUATE_HELP = """\
Score entries on benchmarks and keep predictions and scores in them.

  python -m training evaluate pbc8-efficientnet-lite0 --benchmark lisc bccd-crops --data ROOT
  python -m training evaluate my-zoo/my-model --own my-cells --name my-lab

An entry is never scored on pictures it may have been trained on. What is cut short is gone on
with by the same command."""
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
RUNS = Path(os.environ.get(runs.VARIABLE) or runs.DEFAULT)  # where running states are kept; the app looks there


FAILURES = (
    DataError,
    CheckpointError,
    FitError,
    WeightsError,
    EntryError,
    ExplanationError,
    BusyError,
    fetch.FetchError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except (RecipeError, sweep.SweepError) as error:
        return _say(error, USAGE)
    except FAILURES as error:
        return _say(error, FAILED)
    except TrainingStopped as error:
        return _say(error, INTERRUPTED)
    except KeyboardInterrupt:
        return _say(f"Stopped. What is finished is kept; {options.again}.", INTERRUPTED)
    except OSError as error:
        return _say(f"{error.filename or 'A file'} cannot be read or written: {error.strerror}.", FAILED)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("python -m training", description="Make models of blood cells for the zoo.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_sweep(commands)
    _add_evaluate(commands)
    _add_crossval(commands)
    _add_left_out(commands)
    _add_rows(commands)
    _add_report(commands)
    _add_adapt(commands)
    _add_publish(commands)
    _add_publish_examples(commands)
    _add_deploy(commands)
    _add_gate(commands)
    _add_quality(commands)
    _add_features(commands)
    _add_reproduce(commands)
    _add_audit(commands)
    _add_split(commands)
    _add_fetch(commands)
    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.add_argument("--json", action="store_true", help="print a JSON list on stdout")
    recipes.set_defaults(run=_recipes, again="give the command again")
    return top


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="fit a recipe and write a zoo entry",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=TRAIN_HELP,
        epilog=f"Recipes: {', '.join(recipe_ids())}, or the path of a .toml file.",
    )
    train.add_argument("recipe", help="a recipe's id, or a .toml file")
    train.add_argument(
        "--data", type=Path, metavar="DATA", help="the data set's folder or file (an ensemble needs none)"
    )
    train.add_argument("--out", type=Path, required=True, metavar="ENTRY", help="folder of the entry to write")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the recipe, as in --set optimizer.lr=0.01; may be given several times",
    )
    train.add_argument("--split", type=Path, metavar="MANIFEST", help="a split made by `split`, not the recipe's")
    train.add_argument(
        "--originals",
        type=Path,
        metavar="DIR",
        help="original frames of an augmented data set (default: ../bccd/JPEGImages beside --data)",
    )
    train.add_argument(
        "--published", action="store_true", help="the published system's protocol, leaks included; marked everywhere"
    )
    train.add_argument("--scratch", action="store_true", help="random start weights where the recipe's cannot be had")
    train.add_argument("--work", type=Path, metavar="DIR", help="folder of the running state (default: runs/NAME)")
    train.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    train.add_argument("--log", choices=LOGS, help="also report epochs to this tracker, into runs/logs/NAME")
    train.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    train.add_argument("--finish", action="store_true", help="make an entry of an unfinished run's best epoch")
    train.add_argument("--restart", action="store_true", help="forget an unfinished run, replace an entry in --out")
    train.add_argument("--json", action="store_true", help="print the entry's summary as JSON on stdout")
    train.set_defaults(run=_train, again="give the same command with --resume")


def _add_sweep(commands: argparse._SubParsersAction) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="search a recipe's settings on validation",
        description="Search a recipe's settings with Optuna, on validation alone. Start the same command again, at any "
        "time and on any machine that reaches the storage: workers share the trials, and one that died is replaced.",
    )
    sweep.add_argument("recipe", help="a recipe's id, or a .toml file")
    sweep.add_argument(
        "--space", type=Path, required=True, metavar="FILE", help="TOML file of what is searched, and how"
    )
    sweep.add_argument("--storage", required=True, metavar="URL", help="as sqlite:///sweep.db, or any URL of Optuna's")
    sweep.add_argument("--data", type=Path, required=True, metavar="DATA", help="the data set's folder or file")
    sweep.add_argument("--originals", type=Path, metavar="DIR", help="original frames of an augmented data set")
    sweep.add_argument("--split", type=Path, metavar="MANIFEST", help="a split made by `split`, not the recipe's")
    sweep.add_argument("--name", help="of the study (default: the recipe's id)")
    sweep.add_argument("--out", type=Path, metavar="DIR", help="folder of table and plot (default: runs/sweeps/NAME)")
    sweep.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    sweep.add_argument("--json", action="store_true", help="print all trials as JSON on stdout")
    sweep.set_defaults(run=_sweep, again="give the same command to go on")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    judge = commands.add_parser(
        "evaluate",
        help="score entries on benchmarks",
        description=EVALUATE_HELP,
        epilog="Benchmarks: " + ", ".join(benchmarks.names()) + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    judge.add_argument("entries", nargs="+", metavar="ENTRY", help="an entry's id in the zoo, or its folder")
    judge.add_argument("--benchmark", nargs="+", action="extend", metavar="NAME", help="none: all that fit")
    judge.add_argument("--data", type=Path, metavar="ROOT", help="folder that holds the data sets' folders")
    judge.add_argument("--own", type=Path, metavar="DIR", help="a labelled folder of your own as the benchmark")
    judge.add_argument("--name", default="own", help="what to call it (default: own)")
    judge.add_argument("--again", dest="anew", action="store_true", help="score again what the entry holds already")
    judge.add_argument("--speed", action="store_true", help="also measure how many images a second it classifies")
    judge.add_argument("--rescore", action="store_true", help="only compute the figures of stored predictions again")
    judge.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    judge.add_argument("--json", action="store_true", help="print the entries' summaries as JSON on stdout")
    judge.set_defaults(run=_evaluate, again="give the command again to go on")


def _add_crossval(commands: argparse._SubParsersAction) -> None:
    cross = commands.add_parser(
        "crossval",
        help="train a recipe on grouped folds",
        description="Train a recipe once a fold, whole cells apart, and keep what each fold answers for cells it "
        "never saw. Cut short, it goes on where it was.",
    )
    cross.add_argument("recipe", help="a recipe's id, or a .toml file; classical heads train their network with them")
    cross.add_argument("--data", type=Path, required=True, help="the data set's folder")
    cross.add_argument("--into", metavar="ENTRY", help="entry of the same recipe that keeps the answers")
    cross.add_argument("--folds", type=int, default=5, help="(default: 5)")
    cross.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    cross.add_argument("--originals", type=Path, metavar="DIR", help="original frames of an augmented data set")
    cross.add_argument("--place", type=Path, metavar="DIR", help="where the folds are kept (default: runs/crossval/ID)")
    cross.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    cross.add_argument("--json", action="store_true", help="print the scores as JSON on stdout")
    cross.set_defaults(run=_crossval, again="give the command again to go on")


def _add_left_out(commands: argparse._SubParsersAction) -> None:
    left = commands.add_parser(
        "loso",
        help="train a recipe without each of its laboratories, judge it there",
        description="Leave one laboratory (source) out: train a recipe of several laboratories once without each, and "
        "judge it on the pictures of that one that it trains on otherwise. It is what recipes are chosen by, and what "
        "tells how sure answers are out there. Cut short, it goes on where it was.",
    )
    left.add_argument("recipe", help="a recipe's id, or a .toml file; one that mixes laboratories (data.mix)")
    left.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder that holds their folders")
    left.add_argument("--into", metavar="ENTRY", help="entry of the same recipe that keeps the answers")
    left.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    left.add_argument("--place", type=Path, metavar="DIR", help="where the models are kept (default: runs/loso/ID)")
    left.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    left.add_argument("--json", action="store_true", help="print the scores as JSON on stdout")
    left.set_defaults(run=_left_out, again="give the command again to go on")


def _add_rows(commands: argparse._SubParsersAction) -> None:
    made = commands.add_parser(
        "rows",
        help="make a benchmark's rows again",
        description="Print a published benchmark's rows as CSV, made again by its rule from the data sets.",
    )
    made.add_argument("benchmark", choices=benchmarks.names(), metavar="NAME", help=", ".join(benchmarks.names()))
    made.add_argument(
        "--data", type=Path, required=True, metavar="ROOT", help="folder that holds the data sets' folders"
    )
    made.set_defaults(run=_rows, again="give the command again")


def _add_report(commands: argparse._SubParsersAction) -> None:
    told = commands.add_parser(
        "report",
        help="compare entries in one HTML page",
        description="Write one self-contained HTML page that compares entries on every benchmark they were scored on. "
        "Pictures are shown of the data sets whose folders HEMAZOO_DATASETS names.",
    )
    told.add_argument("entries", nargs="+", metavar="ENTRY", help="an entry's id in the zoo, or its folder")
    told.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, for instance report.html")
    told.add_argument("--no-thumbnails", action="store_true", help="keep pictures out of the page, to pass it on")
    told.set_defaults(run=_report, again="give the command again")


def _add_adapt(commands: argparse._SubParsersAction) -> None:
    told = commands.add_parser(
        "adapt",
        help="make an entry for your own laboratory from a few of its cells",
        description="Make a new entry of an entry and a few pictures of another laboratory: a folder of pictures for "
        f"each class, {adaptation.LEAST} of a class or more, or pictures without labels. What it gained is told by "
        "cross-validation: each cell is judged by what was made without it.",
    )
    told.add_argument("entry", metavar="ENTRY", help="an entry's id in the zoo, or its folder")
    told.add_argument("--data", type=Path, required=True, metavar="DIR", help="class folders, or pictures")
    told.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new entry's folder")
    told.add_argument("--name", metavar="NAME", help="of the laboratory (default: the folder's)")
    told.add_argument("--json", action="store_true", help="print what came of it as JSON on stdout")
    told.set_defaults(run=_adapt, again="give the command again")


def _add_publish(commands: argparse._SubParsersAction) -> None:
    told = commands.add_parser(
        "publish",
        help="put entries on the Hugging Face Hub",
        description="Put entries into model repositories of the Hub: one commit each, with a card, then fetched again "
        "and asked to prove it. Publishing again renews what changed. Log in first with `hf auth login`.",
    )
    told.add_argument("entries", nargs="+", metavar="ENTRY", help="an entry's id in the zoo, or its folder")
    told.add_argument("--repo", required=True, metavar="NAMESPACE[/NAME]", help="where to; NAME is the entry's id")
    told.add_argument("--private", action="store_true", help="a new repository is private")
    told.add_argument("--tag", metavar="TAG", help="name of this state, such as v1")
    told.add_argument("--pr", action="store_true", help="propose a pull request instead of changing main")
    told.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    told.add_argument("--json", action="store_true", help="print what was published as JSON on stdout")
    told.set_defaults(run=_publish, again="give the command again")


def _add_publish_examples(commands: argparse._SubParsersAction) -> None:
    told = commands.add_parser(
        "publish-examples",
        help="put pictures to try on the Hugging Face Hub",
        description="Put a few pictures of each class into a data-set repository of the Hub, which the app's Examples "
        "page shows where HEMAZOO_EXAMPLES=hub:NAMESPACE/NAME names it. They are saved anew, without the file's name "
        "and metadata. Publish only what you may, and no name of a patient in the picture itself.",
    )
    told.add_argument("folder", type=Path, metavar="DIR", help="pictures, or a folder of them for each class")
    told.add_argument("--repo", required=True, metavar="NAMESPACE/NAME", help="the data-set repository")
    told.add_argument("--each", type=int, default=publish_examples.EACH, metavar="N", help="of each class (default 3)")
    told.add_argument("--title", default=publish_examples.Wanted.title, metavar="TEXT", help="the card's name")
    told.add_argument("--credit", default="", metavar="TEXT", help="where the pictures are from")
    told.add_argument("--license", default="other", metavar="ID", help="as the Hub calls it, such as cc-by-4.0")
    told.add_argument("--private", action="store_true", help="a new repository is private")
    told.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    told.add_argument("--json", action="store_true", help="print what was published as JSON on stdout")
    told.set_defaults(run=_publish_examples, again="give the command again")


def _add_deploy(commands: argparse._SubParsersAction) -> None:
    told = commands.add_parser(
        "deploy-space",
        help="put the app on the Hugging Face Hub as a Space",
        description="Put the app into a Space of the Hub, as a container, in one commit; what is there already is not "
        "sent again. Log in first with `hf auth login`.",
    )
    told.add_argument("--repo", required=True, metavar="NAMESPACE/NAME", help="the Space")
    told.add_argument("--hardware", metavar="NAME", help="such as cpu-basic or t4-small; left as it is if not given")
    told.add_argument("--zoo", metavar="NAMESPACE", help="place on the Hub whose models it lists beside the built-in")
    told.add_argument("--private", action="store_true", help="a new Space is private")
    told.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    told.add_argument("--json", action="store_true", help="print what was deployed as JSON on stdout")
    told.set_defaults(run=_deploy, again="give the command again")


def _add_gate(commands: argparse._SubParsersAction) -> None:
    gate = commands.add_parser(
        "gate",
        help="teach entries which pictures they know nothing about",
        description="Fit each entry's gate on the cells it was trained on, and measure it: false alarms on its own "
        "test cells, and what it does with photographs, tissue, text, noise, empty smears and cells of other "
        "laboratories. Both come into the entry.",
    )
    _add_measured(gate)
    gate.add_argument("--judge-only", action="store_true", help="measure the gates that are there")
    gate.set_defaults(run=_gate, again="give the command again")


def _add_quality(commands: argparse._SubParsersAction) -> None:
    told = commands.add_parser(
        "explain-quality",
        help="measure whether an entry's maps are to be believed",
        description="Measure maps on many pictures: whether they lie on the cell, whether the model loses its class "
        "without what they mark, and whether they depend on its weights. What is found comes into the entry.",
    )
    _add_measured(told)
    told.add_argument("--method", choices=METHODS, metavar="M", action="append", help=f"one of {', '.join(METHODS)}")
    told.set_defaults(run=_quality, again="give the command again")


def _add_measured(command: argparse.ArgumentParser) -> None:
    """What a command that measures entries on the data sets is told."""
    command.add_argument("entries", nargs="+", metavar="ENTRY", help="an entry's id in the zoo, or its folder")
    command.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder that holds the data sets")
    command.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print what was measured as JSON on stdout")


def _add_features(commands: argparse._SubParsersAction) -> None:
    features = commands.add_parser(
        "features",
        help="write what a model computes of each picture as a table",
        description="Write the features a model judges by, one row a picture: the few of a classical head, or the "
        "vector before the last layer. In an audit's folder the Data page shows them, too.",
        epilog=_layouts(),
    )
    features.add_argument("entry", help="a model of the zoo")
    features.add_argument("--data", type=Path, required=True, metavar="DATA", help="the data set's folder or file")
    features.add_argument("--out", type=Path, required=True, metavar="FILE", help=".csv or .parquet")
    features.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    features.set_defaults(run=_features, again="give the command again")


def _add_reproduce(commands: argparse._SubParsersAction) -> None:
    again = commands.add_parser(
        "reproduce",
        help="train the published systems and write the table of results",
        description="Train every recipe of the published systems under their protocol and under an honest one, as far "
        "as the budget goes, and write the table of results from the entries. What is there is not trained again.",
    )
    again.add_argument("--system", choices=tuple("ABCDE"), help="one system only")
    again.add_argument(
        "--champions", action="store_true", help="ours for cells of any laboratory: trained, scored on every benchmark"
    )
    again.add_argument("--only", action="append", metavar="RECIPE", help="one recipe only; may be given several times")
    again.add_argument(
        "--data", type=Path, metavar="ROOT", help="folder that holds dataset2 and pbc; none: only the table"
    )
    again.add_argument("--zoo", type=Path, default=BUILTIN, metavar="DIR", help="folder of the entries")
    again.add_argument("--table", type=Path, default=results.TABLE, metavar="FILE", help="(default: docs/results.md)")
    again.add_argument("--budget", type=float, default=float("inf"), metavar="MINUTES", help="begin nothing after it")
    again.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    again.add_argument("--json", action="store_true", help="print the rows as JSON on stdout")
    again.set_defaults(run=_reproduce, again="give the same command to go on")


def _add_audit(commands: argparse._SubParsersAction) -> None:
    audit = commands.add_parser(
        "audit",
        help="find out whether a data set can be trusted",
        description="Look for unreadable pictures, copies, source cells, outliers, shortcuts and label errors. What "
        "was measured is kept, so that an interrupted audit goes on where it stopped.",
        epilog=_layouts(),
    )
    _add_data(audit)
    audit.add_argument(
        "--embedder",
        default=EMBEDDER,
        metavar="ENTRY",
        help="the zoo's model that tells what looks alike (default: %(default)s)",
    )
    audit.add_argument("--out", type=Path, required=True, metavar="REPORT", help="folder of the report to write")
    audit.add_argument("--no-thumbnails", action="store_true", help="keep pictures out of the report, to pass it on")
    audit.add_argument("--restart", action="store_true", help="replace a report in --out")
    audit.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    audit.set_defaults(run=_audit, again="give the command again to go on")


def _add_split(commands: argparse._SubParsersAction) -> None:
    split = commands.add_parser(
        "split",
        help="divide a data set without leaks and write a manifest",
        description="Divide a data set into train, val and test. All copies of one source cell stay on one side, in "
        "every scheme but random, which is leaky and exists to reproduce published figures.",
        epilog=_layouts(),
    )
    _add_data(split)
    split.add_argument("--scheme", choices=SCHEMES, required=True, help="grouped is the one to choose where in doubt")
    split.add_argument(
        "--fractions",
        type=_fractions,
        default=(0.7, 0.15, 0.15),
        metavar="TRAIN,VAL,TEST",
        help="shares that add up to 1 (default: 0.7,0.15,0.15); official and kfold use the second alone",
    )
    split.add_argument("--folds", type=int, default=5, help="folds of kfold: one manifest each (default: %(default)s)")
    split.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    split.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help=".json file; kfold adds -1, -2, …")
    split.add_argument("--restart", action="store_true", help="replace a manifest in --out")
    split.add_argument("--json", action="store_true", help="print a summary as JSON on stdout")
    split.set_defaults(run=_split, again="give the command again to go on")


def _add_fetch(commands: argparse._SubParsersAction) -> None:
    get = commands.add_parser(
        "fetch",
        help="download a data set",
        description="Download a data set into a folder that every other command reads.",
        epilog=fetch.NAMES,
    )
    get.add_argument("name", help="bloodmnist[_64|_128|_224], kaggle:OWNER/NAME, blood-cells, or hf:OWNER/NAME")
    get.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to put it in; must not exist")
    get.add_argument("--json", action="store_true", help="print what was fetched as JSON on stdout")
    get.set_defaults(run=_fetch, again="give the command again")


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", type=Path, metavar="DATA", help="the data set's folder or file")
    command.add_argument(
        "--originals", type=Path, metavar="DIR", help="folder of the frames that an augmented data set was made from"
    )


def _layouts() -> str:
    return f"DATA may be: {'; '.join(layout.NAME for layout in layouts())}."


def _fractions(text: str) -> tuple[float, float, float]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, as in 0.7,0.15,0.15") from error
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6 or not all(0 < share < 1 for share in shares):
        raise argparse.ArgumentTypeError("give three shares above 0 that add up to 1, as in 0.7,0.15,0.15")
    return shares


def _audit(options: argparse.Namespace) -> int:
    out = options.out.resolve()
    if out.exists() and not options.restart:
        return _say(f"{out} is already there. Choose another --out, or --restart to replace it.", USAGE)
    embedder = get_entry(options.embedder)
    data = read_dataset(options.data)
    _say(f"{len(data):,} pictures, {len(data.labels)} classes, read as {data.layout}.", OK)
    found = run_audit(data, embedder, cache_folder(), options.originals)
    audit = write(out, found, embedder, thumbnails=not options.no_thumbnails)
    for alarming, line in headlines(audit.report):
        _say(f"{'!' if alarming else '·'} {line}", OK)
    for name, reason in audit.report.unreadable_reasons.items():
        _say(f"cannot be read: {name}: {reason}", OK)
    _say(f"Report: {out / 'index.html'}", OK)
    if options.json:
        print(audit.report.model_dump_json())
    return FAILED if audit.report.unreadable else OK


def _split(options: argparse.Namespace) -> int:
    many = options.scheme == "kfold"
    paths = [_numbered(options.out, n) for n in range(1, options.folds + 1)] if many else [options.out]
    there = next((path for path in paths if path.exists()), None)
    if there and not options.restart:
        return _say(f"{there} is already there. Choose another --out, or --restart to replace it.", USAGE)
    if many and options.folds < 2:
        return _say("kfold needs at least 2 folds.", USAGE)
    whole = read_dataset(options.data)
    data = whole.where(lambda item: item.label is not None)
    if len(data.labels) < 2:
        return _say(f"{options.data} has pictures of fewer than two classes; there is nothing to split by.", FAILED)
    measured, _, cells = look_for_copies(data, cache_folder(), options.originals)
    table = table_of(data, measured, cells)
    warn(len(whole) - len(table.files), "pictures without a label or that cannot be read")
    told = []
    for number, path in enumerate(paths):
        split = split_by(options.scheme, table, options.fractions, options.seed, options.folds, number)
        fold = {"fold": number, "folds": options.folds} if many else {}
        manifest = make_manifest(data, table, split, options.scheme, options.seed, options.fractions, **fold)
        write_manifest(path, manifest)
        report(split)
        told.append(
            {
                "manifest": str(path),
                "hash": manifest.hash,
                "images": {name: len(rows) for name, rows in split.rows.items()},
                "cells": {name: len({split.cells[i] for i in rows}) for name, rows in split.rows.items()},
                "left_out": dict(split.left_out),
                "leaky": split.leaky,
                "leak_share": split.leak_share,
            }
        )
        _say(f"{path}: {manifest.hash}", OK)
    if options.json:
        print(json.dumps(told if many else told[0]))
    return OK


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _fetch(options: argparse.Namespace) -> int:
    out = options.out.resolve()
    if out.exists():
        return _say(f"{out} is already there. Choose another --out.", USAGE)
    try:
        source = fetch.parse(options.name)
    except fetch.FetchError as error:
        return _say(error, USAGE)
    fetch.fetch(source, out)
    augmented = source.name == fetch.BLOOD_CELLS
    place = options.out / "dataset2" if augmented else options.out
    data = read_dataset(place)
    more = f" --originals {options.out / 'bccd' / 'JPEGImages'}" if augmented else ""
    _say(f"{place}: {len(data):,} pictures, {len(data.labels)} classes.", OK)
    _say(f"Next: python -m training audit {place}{more} --out reports/{place.name}", OK)
    if options.json:
        print(json.dumps({"data": str(place), "images": len(data), "classes": list(data.labels)}))
    return OK


def _train(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set, options.published, options.scratch)
    recipe, out = with_labels(recipe, options.data), options.out.resolve()
    work = options.work or RUNS / out.name
    started = begun(work)
    refused = _refused(options, recipe, out, work, started)
    if refused:
        return _say(refused, USAGE)
    accelerator = make_accelerator(resolve_device(options.device), options.log, RUNS / "logs" / out.name)
    if options.restart and accelerator.is_main_process:
        shutil.rmtree(work, ignore_errors=True)
    if options.log:
        accelerator.init_trackers(recipe.id)
    job = Job(
        recipe, options.data, out, work, options.split, options.originals, options.resume and started, options.finish
    )
    try:
        entry = train(job, accelerator)
    finally:
        accelerator.end_training()
    if entry is None:
        return OK  # another process writes and tells
    test = next(b for b in entry.evaluation.benchmarks.values() if b.role == "test")
    accuracy = test.metrics["accuracy"]
    _say(f"{out}: test accuracy {accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f}).", OK)
    _say(f"To see it in the app: HEMAZOO_ZOO={out.parent} make demo", OK)
    if options.json:
        print(json.dumps(summary(entry)))
    return OK


def _sweep(options: argparse.Namespace) -> int:
    space = sweep.read_space(options.space)
    sweep.check_keys(space, options.recipe)
    name = options.name or load_recipe(options.recipe).id
    out = options.out or RUNS / "sweeps" / name
    accelerator = make_accelerator(resolve_device(options.device))
    study = sweep.open_study(space, options.storage, name)

    kept: dict[str, Ready] = {}

    def ready(recipe: Recipe) -> tuple[Recipe, Arrays, Split]:
        recipe = with_labels(recipe, options.data)
        # trials of one data set and split share them; what is known beside a picture is read where it is asked for
        beside = f"{recipe.attributes} {recipe.augment.surroundings > 0}"
        key = f"{recipe.data} {recipe.clean} {recipe.balance} {recipe.seed} {beside}"
        if key not in kept:
            kept[key] = make_ready(Job(recipe, options.data, out, out, options.split, options.originals))
        return recipe, kept[key].arrays, kept[key].split

    sweep.run(study, space, options.recipe, ready, out, accelerator, say)
    sweep.write_report(study, space, out)
    found = sweep.table(study)
    done = found[found["state"] == "complete"]
    if done.empty:
        return _say("No trial was finished: every one diverged or was cut short. Widen the space.", FAILED)
    best = " ".join(f"--set {shlex.quote(change)}" for change in sweep.changes_of(space, study.best_params))
    _say(f"Best of {len(done)}: {space.metric} {study.best_value:.4f} (trial {study.best_trial.number}).", OK)
    _say(f"Next: python -m training train {options.recipe} {best} --data {options.data} --out ENTRY", OK)
    _say(f"Table and plot: {out / 'trials.csv'}, {out / 'trials.html'}", OK)
    if options.json:
        print(found.to_json(orient="records"))
    return OK


def _evaluate(options: argparse.Namespace) -> int:
    named = [_entry(name, usable=not options.rescore) for name in options.entries]
    if options.rescore:
        for entry in named:
            more = "" if evaluate.rescore(entry) else " Its card stays as it is: its recipe is of another version."
            _say(f"{entry.id}: {len(entry.evaluation.benchmarks)} benchmarks computed again.{more}", OK)
        return _summaries(named, options.json)
    if options.own is None and options.data is None:
        return _say("Name the data sets' folder with --data, or a labelled folder of your own with --own.", USAGE)
    if options.own and not ID.match(options.name):
        return _say(f"{options.name!r} is no benchmark name: use letters, digits, dots, dashes and underscores.", USAGE)
    unknown = set(options.benchmark or []) - set(benchmarks.names())
    if unknown or options.name in benchmarks.names():
        known = ", ".join(benchmarks.names())
        what = ", ".join(sorted(unknown)) or options.name
        said = f"There is no benchmark {what}" if unknown else f"{what} is the name of a published benchmark"
        return _say(f"{said}. Published: {known}.", USAGE)
    if options.own:
        chosen = [evaluate.own_benchmark(options.own, options.name, named)]
    else:
        found = [benchmarks.get_benchmark(name) for name in options.benchmark or benchmarks.names()]
        chosen = [(one, one.pictures(options.data)) for one in found]
    failed: dict[str, str] = {}
    with Runtime(resolve_device(options.device)) as runtime:
        for benchmark, pictures in chosen:
            open_ones = [e for e in named if options.anew or not evaluate.holds(e, benchmark)]
            if not (options.benchmark or options.own):  # asked for what fits: the rest is no failure
                open_ones = [e for e in open_ones if not evaluate.refused(e, benchmark)]
            if open_ones:
                failed |= evaluate.evaluate(open_ones, benchmark, pictures, runtime, say)
        for entry in named if options.speed else ():
            home = home_benchmark(entry)
            mine = next((pictures for benchmark, pictures in chosen if benchmark.name == home), chosen[0][1])
            rate = evaluate.put_speed(entry, runtime, mine)
            _say(f"{entry.id}: {rate:,.0f} images a second", OK)
    for reason in failed.values():
        _say(reason, FAILED)
    return _summaries(named, options.json) or (FAILED if failed else OK)


def _crossval(options: argparse.Namespace) -> int:
    recipe = with_labels(load_recipe(options.recipe, options.set), options.data)
    if recipe.ensemble:
        return _say(f"{recipe.id} is an ensemble: cross-validate its members.", USAGE)
    if options.folds < 2:
        return _say("At least 2 folds are needed.", USAGE)
    place = options.place or RUNS / "crossval" / recipe.id
    accelerator = make_accelerator(resolve_device(options.device))
    originals = originals_of(recipe, options.data, options.originals)
    plan = crossval.Plan(recipe, options.data, place.resolve(), options.folds, originals)
    table = crossval.crossval(plan, accelerator, say)
    found = scoring.intervals(scoring.score(table, list(table.columns[3:]), AS_STORED))
    for name in ("accuracy", "balanced_accuracy", "accuracy_by_cell"):
        i = found[name]
        _say(f"{scoring.METRICS[name].title} {100 * i.value:.1f} % ({100 * i.low:.1f} to {100 * i.high:.1f})", OK)
    if options.into:
        entry = _entry(options.into, usable=False)
        _say(f"{entry.id} keeps it as {crossval.add(entry, plan, table, device_name(accelerator.device))}.", OK)
    if options.json:
        print(json.dumps(as_dict(found)))
    return OK


def _left_out(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe, options.set)
    if recipe.ensemble:
        return _say(f"{recipe.id} is an ensemble: ask its members.", USAGE)
    place = options.place or RUNS / "loso" / recipe.id
    accelerator = make_accelerator(resolve_device(options.device))
    found = left_out.leave_out(recipe, options.data, place.resolve(), accelerator, say)
    for name, scores in found.scores.items():
        i = scores["balanced_accuracy"]
        _say(f"in {name}: balanced {100 * i['value']:.1f} % ({100 * i['low']:.1f} to {100 * i['high']:.1f})", OK)
    _say(f"temperature out there: {found.temperature:.2f}", OK)
    if options.into:
        entry = _entry(options.into, usable=False)
        _say(f"{entry.id} keeps it as {left_out.add(entry, recipe, found, device_name(accelerator.device))}.", OK)
    if options.json:
        print(json.dumps({"temperature": found.temperature, "labels": found.labels, "laboratories": found.scores}))
    return OK


def _rows(options: argparse.Namespace) -> int:
    made = rows_of(options.benchmark, options.data)
    print(made.to_csv(index=False, lineterminator="\n"), end="")
    same = made.equals(benchmarks.get_benchmark(options.benchmark).rows)
    _say(f"{len(made):,} rows, {'as published' if same else 'not those that are published'}.", OK)
    return OK if same else FAILED


def _report(options: argparse.Namespace) -> int:
    named = [_entry(name, usable=False) for name in options.entries]
    silent = [entry.id for entry in named if not entry.evaluation.benchmarks]
    if silent:
        return _say(f"{', '.join(silent)}: no predictions to compare. Score it first: `evaluate`.", FAILED)
    folders = [] if options.no_thumbnails else places()
    write_text(options.out, comparison.render(named, distinct_titles(named), folders))
    _say(f"{options.out}: {len(named)} models.", OK)
    return OK


def _adapt(options: argparse.Namespace) -> int:
    entry = _entry(options.entry, usable=True)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", options.name or options.data.resolve().name).strip("-._") or "laboratory"
    known = {label.lower(): label for label in entry.labels}
    images, labels, files, failed = [], [], [], 0
    for item in read_dataset(options.data).items:
        try:
            images.append(item.source.image())
        except ImageError as error:
            failed += 1
            say(f"{item.file}: {error}")
            continue
        files.append(item.file)
        labels.append(None if item.label is None else known.get(item.label.lower(), item.label))
    with tqdm(total=100, desc="adapting", unit="%", disable=None) as bar:

        def say_how_far(share: float, what: str) -> None:
            bar.set_postfix_str(what)
            bar.update(round(100 * share) - bar.n)

        made = adaptation.adapt(entry, images, labels, options.out, name, files, say_how_far)
    if options.json:
        told = {"before": made.before, "after": made.after, "gain": made.gain}
        scores = {key: found and asdict(found) for key, found in told.items()}
        facts = {"pictures": made.pictures, "labelled": made.labelled, "agree": made.agree}
        print(json.dumps({"entry": str(options.out), "changed": str(made.choice), **scores, **facts}))
    say(f"changed: {made.choice}")
    if made.before and made.after and made.gain:
        for what, found in (("before", made.before), ("after", made.after), ("gained", made.gain)):
            unit = "points" if what == "gained" else "%"
            shown = f"{100 * found.value:.1f} {unit} ({100 * found.low:.1f} to {100 * found.high:.1f})"
            say(f"{what}: {shown} balanced, cross-validated on {made.labelled} cells")
    else:
        say(f"{100 * made.agree:.0f} % of answers stayed as they were. Without labels nobody knows which are right.")
    say(f"To see it in the app: HEMAZOO_ZOO={options.out.resolve().parent} make demo")
    return FAILED if failed else OK


def _publish(options: argparse.Namespace) -> int:
    named = [_entry(name, usable=False) for name in options.entries]
    namespace, _, name = options.repo.partition("/")
    if name and len(named) > 1:
        return _say("Several entries go into a namespace: give --repo NAMESPACE.", USAGE)
    wanted = publish.Wanted(options.private, options.tag, options.pr, options.dry_run)
    done, failed = [], 0
    for entry in named:
        try:
            made = publish.publish(entry, f"{namespace}/{name or entry.id}", wanted, say)
        except EntryError as error:
            failed += 1
            say(f"{entry.id}: {error}")
            continue
        done.append({**asdict(made), "entry": entry.id})
        for line in made.change.lines() if options.dry_run else ():
            say(f"{made.repo}: {line}")
        if not made.change.none or options.dry_run:
            how = "would be published" if options.dry_run else f"published at {made.url}, commit {made.sha}"
            say(f"{made.repo}: {how}")
    if options.json:
        print(json.dumps(done))
    return FAILED if failed else OK


def _publish_examples(options: argparse.Namespace) -> int:
    wanted = publish_examples.Wanted(
        options.each, options.title, options.credit, options.license, options.private, options.dry_run
    )
    return _told(publish_examples.publish(options.folder, options.repo, wanted, say), options, "published")


def _told(made: publish.Published, options: argparse.Namespace, what: str) -> int:
    """Say what became of a publication."""
    for line in made.change.lines() if options.dry_run else ():
        say(f"{made.repo}: {line}")
    if options.json:
        print(json.dumps(asdict(made)))
    how = f"would be {what}" if options.dry_run else f"{what} at {made.url}, commit {made.sha}"
    say(f"{made.repo}: {how}")
    return OK


def _deploy(options: argparse.Namespace) -> int:
    wanted = space.Space(options.hardware, options.zoo, options.private, options.dry_run)
    return _told(space.deploy(options.repo, wanted, say), options, "deployed")


def _gate(options: argparse.Namespace) -> int:
    named = [_entry(name, usable=True) for name in options.entries]
    found = {}
    for entry in named:
        if not options.judge_only:
            with Runtime(options.device) as runtime:
                gate.fit(entry, options.data, runtime)
        # the gate is loaded with its model: a new runtime sees it
        with Runtime(options.device) as runtime:
            found[entry.id] = gate.measure(entry, options.data, runtime, say)
    if options.json:
        print(json.dumps(found))
    return OK


def _quality(options: argparse.Namespace) -> int:
    named = [_entry(name, usable=True) for name in options.entries]
    with Runtime(options.device) as runtime:
        found = {
            entry.id: {
                method: explain_quality.quality(entry, options.data, runtime, method, say)
                for method in options.method or methods_for(entry)[:1]
            }
            for entry in named
        }
    if options.json:
        print(json.dumps(found))
    return OK


def _entry(name: str, usable: bool) -> Entry:
    """An entry by its folder, or by its id in the zoo. Raises EntryError if there is none, or none that is usable."""
    place = Path(name).resolve()
    is_folder = (place / CONFIG).is_file()
    entries = list_entries([FolderSource(place.parent, str(place.parent))] if is_folder else None)
    found = {entry.id: entry for entry in entries if entry.ok}
    name = place.name if is_folder else name
    return found[name] if not usable and name in found else get_entry(name, entries)


def _summaries(entries: Sequence[Entry], as_json: bool) -> int:
    if as_json:
        print(json.dumps([summary(read_entry(entry.folder)) for entry in entries]))
    return OK


def _features(options: argparse.Namespace) -> int:
    entry = get_entry(options.entry)
    table, unreadable = feature_table(entry, read_dataset(options.data), resolve_device(options.device))
    write_features(options.out, table)
    for name, reason in unreadable.items():
        _say(f"left out {name}: {reason}", OK)
    _say(f"{options.out}: {len(table):,} pictures, {len(table.columns) - 2} features.", OK)
    return FAILED if unreadable else OK


def _reproduce(options: argparse.Namespace) -> int:
    if options.champions:
        return _champions(options)
    wanted = results.wanted(options.system, options.only)
    failed = []
    if options.data is not None:
        accelerator = make_accelerator(resolve_device(options.device))
        failed = results.reproduce(wanted, options.data, options.zoo, RUNS, options.budget * 60, accelerator, say)
    rows = results.rows(wanted, list_entries([FolderSource(options.zoo, str(options.zoo))]))
    if options.system is None and options.only is None:
        results.write_table(options.table, rows)
        _say(f"Table: {options.table}", OK)
        _renew_readme(options)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    return FAILED if failed else OK


def _champions(options: argparse.Namespace) -> int:
    failed = []
    if options.data is not None:
        accelerator = make_accelerator(resolve_device(options.device))
        failed = champions.reproduce(options.data, options.zoo, RUNS, options.budget * 60, accelerator, say)
    for reason in failed:
        _say(reason, FAILED)
    champions.write_table(champions.TABLE if options.table == results.TABLE else options.table, options.zoo)
    _renew_readme(options)
    return _summaries(champions.champions(options.zoo), options.json) or (FAILED if failed else OK)


def _renew_readme(options: argparse.Namespace) -> None:
    """The README tells of the built-in zoo, and of no other."""
    if options.table == results.TABLE and options.zoo == BUILTIN:
        readme.renew()


def _refused(options: argparse.Namespace, recipe: Recipe, out: Path, work: Path, started: bool) -> str | None:
    """What speaks against training into `out`, as a sentence."""
    ends = [end for end in (SCRATCH + PUBLISHED, SCRATCH, PUBLISHED) if recipe.id.endswith(end)]
    if ends and not out.name.endswith(ends[0]):
        return f"Call the entry …{ends[0]}, so that nobody takes it for another: --out {out}{ends[0]}"
    if not ID.match(out.name):
        return f"{out.name!r} is no entry name: use letters, digits, dots, dashes and underscores."
    going_on = options.resume or options.finish
    if started and not (going_on or options.restart):
        return f"There is an unfinished run in {work}. Add --resume to go on, or --restart to begin anew."
    if options.finish and not started:
        return f"There is no unfinished run in {work}."
    if out.exists() and not (options.restart or going_on):
        return f"{out} is already there. Choose another --out, or --restart to replace it."
    return None


def _recipes(options: argparse.Namespace) -> int:
    rows = [overview(load_recipe(name)) for name in recipe_ids()]
    if options.json:
        print(json.dumps(rows))
        return OK
    for row in rows:
        size = f"{row['parameters']:,}" if row["parameters"] is not None else "–"
        print(f"{row['id']:27} {row['system'] or '–':3} {row['task']:28} {size:>12}  {row['title']}")
    return OK


def _say(message: object, status: int) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
