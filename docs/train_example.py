"""Train a model of your own from Python: the commands of `python -m training` as functions.

    python docs/train_example.py MY_FOLDER [FOLDER_OF_ANOTHER_LABORATORY]

MY_FOLDER holds one folder of pictures a class. Files are written into my-zoo, runs and reports.
"""

import sys
from pathlib import Path

import training
import zoo


def main(mine: Path, theirs: Path | None = None, **options: object) -> None:
    """Audit and split the pictures, train, score elsewhere, adapt; `options` are those of `training.train`."""
    name = mine.name
    audit = training.audit(mine, f"reports/{name}", restart=True)
    print("pictures:", audit.report.images, "different things:", audit.report.source_cells.subjects)

    # copies of one cell stay on one side; the same split serves every model that is to be compared
    manifest = training.split(mine, f"reports/{name}-split.json", scheme="grouped", restart=True)[0]
    print("split:", manifest.hash[:12])

    entry = training.train(mine, recipe="starter", split=f"reports/{name}-split.json", restart=True, **options)
    print("entry:", entry.id)
    test = next(one for one in entry.evaluation.benchmarks.values() if one.role == "test")
    print("test, balanced accuracy:", test.metrics["balanced_accuracy"])

    if theirs is not None:
        entry = training.evaluate(entry, own=theirs, name="theirs")
        print("another laboratory:", entry.evaluation.benchmarks["theirs"].metrics["balanced_accuracy"])
        adapted = training.adapt(entry, theirs, entry.folder.with_name(f"{entry.id}-adapted"))
        print("adapted to it:", adapted.choice, adapted.before, adapted.after)

    picture = next(path for path in sorted(mine.rglob("*")) if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    print(picture.name, zoo.classify(picture, entry.id).probabilities)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
