"""A forest fitted on one-hot labels, as published system E's is, beside ours of class numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from training.fit.networks.classical import fit_head
from training.recipe import Head, RecipeError, load_recipe
from zoo.entry import HEAD
from zoo.entry.write import write_head
from zoo.scores.one_hot import one_hot_scores
from zoo.scores.temperature import Scaling, scale_probabilities
from zoo.serving.heads import read_head

LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
SEED = 42


def drawn(seed):
    """400 vectors of 40 numbers, whose classes overlap, and their classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(LABELS), 400)
    vectors = random.normal(0, 1, (400, 40)) + 2 * np.eye(len(LABELS), 40)[labels]
    return vectors.astype(np.float32), labels


@pytest.fixture(scope="module")
def forests():
    """Our forest and scikit-learn's on one-hot labels, and vectors with their classes to test them."""
    vectors, labels = drawn(0)
    options = {"n_estimators": 100}
    ours = fit_head(Head(kind="forest", options=options, one_hot=True), vectors, labels, SEED)
    theirs = RandomForestClassifier(random_state=SEED, **options).fit(vectors, np.eye(4)[labels])
    return ours, theirs, *drawn(1)


def test_a_forest_of_classes_has_the_votes_of_one_hot_labels(forests, tmp_path):
    """Also when it was stored and read, as entries are."""
    ours, theirs, vectors, _ = forests
    shares = np.column_stack([one[:, 1] for one in theirs.predict_proba(vectors)])
    assert np.abs(ours.predict_proba(vectors) - shares).max() < 1e-9
    write_head(tmp_path, ours)
    read = read_head(tmp_path / HEAD, len(LABELS), vectors.shape[1])
    assert np.array_equal(read.predict_proba(vectors), ours.predict_proba(vectors))


def test_it_differs_from_one_fitted_on_class_numbers_by_ties_alone(forests):
    """One-hot labels' Gini impurity is the classes' times 2/K: the same splits are the best ones."""
    ours, _, vectors, _ = forests
    plain = RandomForestClassifier(100, random_state=SEED).fit(*drawn(0))
    assert np.abs(ours.predict_proba(vectors) - plain.predict_proba(vectors)).mean() < 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.35])
def test_scores_are_those_of_scikit_learn(forests, temperature):
    """From probabilities as they are stored: scaled by a temperature, in half precision."""
    ours, theirs, vectors, labels = forests
    stored = scale_probabilities(ours.predict_proba(vectors), 1 / temperature).astype(np.float16)
    table = pd.DataFrame(stored.astype(np.float32), columns=LABELS)
    table.insert(0, "file", [f"{number}.png" for number in range(len(table))])
    table.insert(1, "cell", [str(number // 2) for number in range(len(table))])
    table.insert(2, "label", [LABELS[number] for number in labels])
    found = one_hot_scores(table, LABELS, Scaling(before=temperature))
    true, answers = np.eye(4)[labels], theirs.predict(vectors)
    assert 0 < (answers.sum(1) == 0).sum() < len(answers)  # some pictures get no class
    assert found["subset_accuracy"].value == pytest.approx(accuracy_score(true, answers))
    expected = precision_recall_fscore_support(true, answers, average="macro", zero_division=0)[:3]
    names = ("macro_precision", "macro_recall", "macro_f1")
    assert [found[name].value for name in names] == pytest.approx(expected, abs=1e-6)
    low, high = found["subset_accuracy"].interval.low, found["subset_accuracy"].interval.high
    assert 0 < low < found["subset_accuracy"].value < high < 1


def test_the_published_protocol_stores_them():
    assert load_recipe("pixels_forest", published=True).head.one_hot
    assert not load_recipe("pixels_forest").head.one_hot
    with pytest.raises(RecipeError, match="one_hot is for a forest"):
        load_recipe("cnn60_knn", ["head.one_hot=true"])
