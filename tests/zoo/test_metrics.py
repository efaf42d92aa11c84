"""Scores are scikit-learn's, intervals are of cells, not of images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from tests.making import LABELS, make_predictions
from zoo import metrics

TABLE = make_predictions(3)
TRUTH, SHARES = metrics.arrays(TABLE, LABELS)
CALLED = SHARES.argmax(1)
FOUND = metrics.evaluate(TABLE, LABELS)
EXPECTED = {
    "accuracy": sk.accuracy_score(TRUTH, CALLED),
    "balanced_accuracy": sk.balanced_accuracy_score(TRUTH, CALLED),
    "macro_precision": sk.precision_score(TRUTH, CALLED, average="macro", zero_division=0),
    "macro_recall": sk.recall_score(TRUTH, CALLED, average="macro"),
    "macro_f1": sk.f1_score(TRUTH, CALLED, average="macro"),
    "log_loss": sk.log_loss(TRUTH, SHARES / SHARES.sum(1, keepdims=True)),
    "brier": ((SHARES - np.eye(4)[TRUTH]) ** 2).sum(1).mean(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_scores_are_those_of_scikit_learn(name):
    assert FOUND[name].value == pytest.approx(EXPECTED[name], abs=1e-3)
    assert FOUND[name].low < FOUND[name].value < FOUND[name].high


def test_every_score_has_a_name_for_people():
    assert set(FOUND) == set(metrics.SCORES)


def test_confusion_has_truth_in_rows():
    counts = metrics.confusion(TRUTH, CALLED, 4)
    assert (counts == sk.confusion_matrix(TRUTH, CALLED, labels=range(4))).all()
    per_class = metrics.class_scores(counts)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(TRUTH, CALLED)
    assert np.allclose(per_class["precision"], precision)
    assert np.allclose(per_class["recall"], recall)
    assert np.allclose(per_class["f1"], f1)


def test_missing_classes_do_not_count():
    counts = np.array([[5, 1, 0], [2, 2, 0], [0, 0, 0]])
    found = metrics.scores(counts)
    assert found["balanced_accuracy"] == pytest.approx((5 / 6 + 0.5) / 2)
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score([0] * 6 + [1] * 4, [0] * 5 + [1] + [0, 0, 1, 1], average="macro")
    )


def test_copies_of_a_cell_narrow_no_interval():
    """Sixteen copies of every image: the interval must stay as wide as it was."""
    once = TABLE.drop_duplicates("cell")
    copies = once.loc[once.index.repeat(16)]
    narrow = metrics.evaluate(copies.assign(cell=[str(n) for n in range(len(copies))]), LABELS)["accuracy"]
    one, many = metrics.evaluate(once, LABELS)["accuracy"], metrics.evaluate(copies, LABELS)["accuracy"]
    assert many.value == pytest.approx(one.value)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.15)
    assert narrow.high - narrow.low < 0.5 * (one.high - one.low)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        right = random.random(300) < 0.8
        table = TABLE.iloc[:0].copy()
        table = table.reindex(range(300)).assign(label=LABELS[0], cell=[f"c{n}" for n in range(300)])
        table[LABELS] = 0.0
        table[LABELS[0]], table[LABELS[1]] = right.astype(float), (~right).astype(float)
        found = metrics.evaluate(table, LABELS)["accuracy"]
        covered += found.low <= 0.8 <= found.high
    assert covered >= 51  # 57 expected of 60; fewer than 51 has a chance of 0.4 %


def test_cells_are_called_by_their_mean():
    expected = [LABELS[n] for n in TABLE.groupby("cell")[LABELS].mean().to_numpy().argmax(1)]
    truth = TABLE.groupby("cell")["label"].first()
    assert FOUND["cell_accuracy"].value == pytest.approx((truth == expected).mean())


def test_cells_of_unknown_source_are_left_out_of_the_score_by_cell():
    odd = TABLE.assign(cell=["unknown-1", *TABLE["cell"].iloc[1:]])
    assert metrics.cell_accuracy(odd, LABELS).value == pytest.approx(
        metrics.cell_accuracy(TABLE.iloc[1:], LABELS).value
    )


def test_labels_are_joined_by_name():
    shuffled = TABLE[["file", "cell", "label", *LABELS[::-1]]].sample(frac=1, random_state=0)
    other = metrics.evaluate(shuffled, LABELS[::-1])
    assert {name: other[name].value for name in other} == pytest.approx({name: FOUND[name].value for name in FOUND})


def test_two_models_are_compared_on_the_same_images():
    worse = make_predictions(8)
    worse.loc[worse.index % 3 == 0, LABELS] = 0.25
    gap = metrics.accuracy_difference(TABLE, worse.sample(frac=1, random_state=1), LABELS)
    assert gap.value == pytest.approx(FOUND["accuracy"].value - metrics.evaluate(worse, LABELS)["accuracy"].value)
    assert 0 < gap.low < gap.value < gap.high
    same = metrics.accuracy_difference(TABLE, TABLE, LABELS)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_calibration_error_of_known_confidence():
    table = TABLE.iloc[:100].copy()
    table[LABELS] = 0.0
    table["label"] = [LABELS[0]] * 70 + [LABELS[1]] * 30
    table[LABELS[0]], table[LABELS[1]] = 0.9, 0.1
    assert metrics.evaluate(table, LABELS)["expected_calibration_error"].value == pytest.approx(0.2)


def test_temperature_is_found():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (random.random((4000, 1)) > shares.cumsum(1)).sum(1).clip(0, 3)
    assert metrics.fit_temperature(truth, logits * 2.0) == pytest.approx(2.0, rel=0.1)
    assert metrics.fit_temperature(truth, logits * 12.0) == pytest.approx(12.0, rel=0.1)


def test_differential_count():
    found = metrics.differential_count(["neutrophil"] * 6 + ["monocyte"] * 4, LABELS).set_index("label")
    assert found["count"].to_dict() == {"eosinophil": 0, "lymphocyte": 0, "monocyte": 4, "neutrophil": 6}
    # Wilson's interval of 6 in 10, as in Newcombe 1998
    assert found.loc["neutrophil", ["low", "high"]].tolist() == pytest.approx([0.3127, 0.8318], abs=1e-3)
    assert found["low"].min() == 0
