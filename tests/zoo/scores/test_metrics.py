"""Scores agree with scikit-learn, scipy and torchmetrics; intervals are over cells, not images."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.classification import MulticlassAUROC, MulticlassCalibrationError

from tests.making import LABELS, make_predictions
from zoo.benchmarks import robustness, scoring
from zoo.scores import bootstrap, curves, metrics, significance
from zoo.scores.predictions import confusion, differential_count, label_arrays
from zoo.scores.temperature import Scaling, fit_temperature, scale_probabilities

TABLE = make_predictions(3)
TRUTH, PROBABILITIES = label_arrays(TABLE, LABELS)
PREDICTED = PROBABILITIES.argmax(1)
FOUND = metrics.evaluate(TABLE, LABELS)


def table_of(truth: np.ndarray, probabilities: np.ndarray, cells: np.ndarray | None = None) -> pd.DataFrame:
    """A prediction table with classes 0..K-1."""
    names = [f"k{n}" for n in range(probabilities.shape[1])]
    table = pd.DataFrame(probabilities, columns=names)
    table.insert(0, "file", [f"{n}.png" for n in range(len(truth))])
    table.insert(1, "cell", [f"c{n}" for n in (range(len(truth)) if cells is None else cells)])
    table.insert(2, "label", [names[n] for n in truth])
    return table


@st.composite
def predictions(draw):
    """Truth (n,) and probabilities (n, K): any number of images and classes, absent classes, ties, sure and wrong."""
    classes, count = draw(st.integers(2, 6)), draw(st.integers(1, 60))
    present = draw(st.integers(1, classes))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = random.integers(0, present, count)
    kind = draw(st.sampled_from(["any", "tied", "right", "wrong", "uniform"]))
    probabilities = random.dirichlet(np.ones(classes) * 0.5, count)
    if kind == "tied":
        probabilities = np.round(probabilities * 4) + 0.25
        probabilities /= probabilities.sum(1, keepdims=True)
    elif kind in ("right", "wrong"):
        probabilities = np.eye(classes)[(truth + (kind == "wrong")) % classes]
    elif kind == "uniform":
        probabilities = np.full((count, classes), 1 / classes)
    return truth, probabilities


def by_scikit_learn(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Scores by scikit-learn; macro recall over the classes that occur, as in balanced accuracy."""
    predicted, names = probabilities.argmax(1), range(probabilities.shape[1])
    mean = {"zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa = sk.cohen_kappa_score(truth, predicted)
        return {
            "accuracy": sk.accuracy_score(truth, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "macro_precision": sk.precision_score(truth, predicted, average="macro", **mean),
            "macro_recall": sk.recall_score(truth, predicted, average="macro", labels=np.unique(truth)),
            "macro_f1": sk.f1_score(truth, predicted, average="macro", **mean),
            "weighted_precision": sk.precision_score(truth, predicted, average="weighted", **mean),
            "weighted_recall": sk.recall_score(truth, predicted, average="weighted", **mean),
            "weighted_f1": sk.f1_score(truth, predicted, average="weighted", **mean),
            # 0/0 where chance agrees always; ours is 0
            "cohen_kappa": kappa if np.isfinite(kappa) else 0.0,
            "mcc": sk.matthews_corrcoef(truth, predicted),
            "log_loss": sk.log_loss(truth, np.clip(probabilities, 1e-7, 1), labels=list(names)),
            "brier": ((probabilities - np.eye(len(names))[truth]) ** 2).sum(1).mean(),
        }


# of six images most draws have a greater mean of areas than the images themselves
FEW = (
    np.array([3, 2, 2, 3, 2, 3]),
    np.array(
        [
            [0.02692, 0.54608, 0.11624, 0.04115, 0.10516, 0.16445],
            [0.01006, 0.00076, 0.10400, 0.76700, 0.10368, 0.01451],
            [0.01176, 0.00000, 0.00697, 0.43117, 0.34869, 0.20141],
            [0.11421, 0.53831, 0.14384, 0.00874, 0.05578, 0.13912],
            [0.65945, 0.03427, 0.08650, 0.01409, 0.06967, 0.13602],
            [0.08610, 0.20949, 0.31180, 0.00376, 0.38307, 0.00579],
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(predictions())
@example(FEW)
def test_scores_agree_with_scikit_learn(made):
    truth, probabilities = made
    table = table_of(truth, probabilities)
    found = metrics.report(table, list(table.columns[3:])).scores
    expected = by_scikit_learn(truth, probabilities)
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-5)
    for name, estimate in found.items():
        interval = estimate.interval
        assert not np.isfinite(interval.value) or interval.low <= interval.value + 1e-6, name
        assert not np.isfinite(interval.value) or interval.value - 1e-6 <= interval.high, name
    # each image is a cell of its own here
    assert found["accuracy_by_cell"].value == pytest.approx(expected["accuracy"])


@settings(max_examples=150, deadline=None)
@given(predictions())
def test_curves_and_areas_agree_with_scikit_learn(made):
    truth, probabilities = made
    once = np.ones((1, len(truth)), np.float32)
    for k in range(probabilities.shape[1]):
        positive, score = truth == k, probabilities[:, k]
        area, precision = (
            float(a[0, 0]) for a in curves.resampled_areas(positive[None], score[None], np.arange(len(truth)), once)
        )
        if positive.any():
            curve = curves.precision_recall(positive, score)
            expected = sk.average_precision_score(positive, score)
            assert (precision, curve.area) == pytest.approx((expected, expected), abs=1e-5)
        else:
            assert np.isnan(precision)
        if positive.any() and not positive.all():
            curve = curves.roc(positive, score)
            fpr, tpr, thresholds = sk.roc_curve(positive, score, drop_intermediate=False)
            assert np.allclose(curve.x, fpr) and np.allclose(curve.y, tpr) and np.allclose(curve.thresholds, thresholds)
            expected = sk.roc_auc_score(positive, score)
            # and it is the Mann–Whitney U statistic as a share
            u = stats.mannwhitneyu(score[positive], score[~positive]).statistic / positive.sum() / (~positive).sum()
            assert (area, curve.area, u) == pytest.approx((expected,) * 3, abs=1e-5)
        else:
            assert np.isnan(area)


@settings(max_examples=100, deadline=None)
@given(predictions())
def test_areas_of_a_resample_equal_those_of_repeated_images(made):
    """A weight of two is the image twice, a weight of zero removes it."""
    truth, probabilities = made
    drawn = np.random.default_rng(0).integers(0, 3, (3, len(truth)))
    positive, score = truth == 0, probabilities[:, 0]
    roc, precision = curves.resampled_areas(
        positive[None], score[None], np.arange(len(truth)), drawn.astype(np.float32)
    )
    for row, area, mean in zip(drawn, roc[0], precision[0], strict=True):
        again, scores = np.repeat(positive, row), np.repeat(score, row)
        if again.any() and not again.all():
            assert area == pytest.approx(sk.roc_auc_score(again, scores), abs=1e-5)
        if again.any():
            assert mean == pytest.approx(sk.average_precision_score(again, scores), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 6), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_calibration_error_and_macro_auc_agree_with_torchmetrics(classes, count, seed):
    random = np.random.default_rng(seed)
    truth, probabilities = random.integers(0, classes, count), random.dirichlet(np.ones(classes), count)
    table = table_of(truth, probabilities)
    found = metrics.report(table, list(table.columns[3:])).scores
    tensors = torch.tensor(probabilities), torch.tensor(truth)
    error = MulticlassCalibrationError(classes, n_bins=curves.N_BINS, norm="l1")(*tensors)
    assert found["ece"].value == pytest.approx(float(error), abs=1e-5)
    if len(np.unique(truth)) == classes:
        area = MulticlassAUROC(classes, average="macro", thresholds=None)(*tensors)
        assert found["macro_auc"].value == pytest.approx(float(area), abs=1e-5)


def test_one_image_and_perfect_predictions():
    one = table_of(np.array([0]), np.array([[0.25, 0.75]]))
    found = metrics.evaluate(one, ["k0", "k1"])
    assert found["accuracy"].value == 0 and found["ece"].value == pytest.approx(0.75)
    assert np.isnan(found["macro_auc"].value) and "macro_auc" not in metrics.as_dict(found)
    truth = np.arange(40) % 2
    perfect = metrics.evaluate(table_of(truth, np.eye(2)[truth]), ["k0", "k1"])
    assert perfect["accuracy"].value == perfect["macro_auc"].value == perfect["mcc"].value == 1
    # forty cells without an error do not exclude errors
    assert perfect["accuracy"].low == pytest.approx(stats.binomtest(40, 40).proportion_ci(method="wilson").low)
    assert perfect["ece"].value == perfect["brier"].value == 0
    with pytest.raises(ValueError, match="no predictions"):
        metrics.evaluate(one.iloc[:0], ["k0", "k1"])


def test_every_score_has_a_title():
    full = metrics.evaluate(TABLE, LABELS, Scaling(1.5, 1.0))
    assert list(full) == [name for name in scoring.METRICS if name not in robustness.METRIC_NAMES]
    assert set(FOUND) == set(full) - {"ece_calibrated"}
    assert all(metric.title for metric in scoring.METRICS.values())
    for name, interval in full.items():
        assert interval.low < interval.value <= interval.high, name


def test_confusion_has_true_labels_in_rows():
    counts = confusion(TRUTH, PREDICTED, 4)
    assert (counts == sk.confusion_matrix(TRUTH, PREDICTED, labels=range(4))).all()
    per_class = metrics.class_scores(counts)
    expected = sk.precision_recall_fscore_support(TRUTH, PREDICTED)
    assert np.allclose([per_class[name] for name in ("precision", "recall", "f1")], expected[:3])


def test_scores_of_each_class():
    found = metrics.report(TABLE, LABELS).classes.set_index("label")
    for k, label in enumerate(LABELS):
        row = found.loc[label]
        assert row["images"] == (k == TRUTH).sum()
        assert row["auc"] == pytest.approx(sk.roc_auc_score(k == TRUTH, PROBABILITIES[:, k]), abs=1e-5)
        assert row["average_precision"] == pytest.approx(
            sk.average_precision_score(k == TRUTH, PROBABILITIES[:, k]), abs=1e-5
        )
        for name in ("precision", "recall", "f1", "auc", "average_precision"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_scores_of_each_class_come_alone_too():
    found, alone = metrics.report(TABLE, LABELS).classes, metrics.classes(TABLE, LABELS)
    assert not [name for name in alone if name.startswith(("auc", "average_precision"))]
    pd.testing.assert_frame_equal(found[list(alone)], alone)


def test_copies_of_a_cell_do_not_narrow_the_interval():
    """With sixteen copies of every image the interval must stay as wide as without."""
    once = TABLE.drop_duplicates("cell")
    copies = once.loc[once.index.repeat(16)]
    narrow = metrics.evaluate(copies.assign(cell=[str(n) for n in range(len(copies))]), LABELS)["accuracy"]
    one, many = metrics.evaluate(once, LABELS)["accuracy"], metrics.evaluate(copies, LABELS)["accuracy"]
    assert many.value == pytest.approx(one.value)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.15)
    assert narrow.high - narrow.low < 0.5 * (one.high - one.low)


def test_interval_over_cells_has_the_stated_coverage_and_one_over_images_does_not():
    """150 cells of 1 to 15 copies, mostly all correct or all wrong: 95 % of intervals should hold 0.8."""
    runs, by_cell, by_image = 1500, 0, 0
    weights, mean = bootstrap.resample_weights(150), 0.8
    for seed in range(runs):
        random = np.random.default_rng(seed)
        sizes = random.integers(1, 16, 150)
        chance = random.beta(0.8, 0.2, 150)  # a cell's own chance: 0.8 in the mean, mostly near 0 or 1
        right = random.binomial(sizes, chance)
        interval = bootstrap.ratio_of_sums(right, sizes, weights).interval
        by_cell += interval.low <= mean <= interval.high
        share, images = right.sum() / sizes.sum(), sizes.sum()
        half = 1.96 * np.sqrt(share * (1 - share) / images)
        by_image += abs(share - mean) <= half
    assert 0.93 <= by_cell / runs <= 0.97
    assert by_image / runs < 0.7


def test_cells_are_predicted_by_the_mean_of_their_images():
    expected = [LABELS[n] for n in TABLE.groupby("cell")[LABELS].mean().to_numpy().argmax(1)]
    truth = TABLE.groupby("cell")["label"].first()
    assert FOUND["accuracy_by_cell"].value == pytest.approx((truth == expected).mean())


def test_score_by_cell_ignores_cells_of_unknown_source():
    odd = TABLE.assign(cell=["unknown-1", *TABLE["cell"].iloc[1:]])
    left = metrics.estimate(TABLE.iloc[1:], LABELS, "accuracy_by_cell").value
    assert metrics.estimate(odd, LABELS, "accuracy_by_cell").value == pytest.approx(left)
    nobody = TABLE.assign(cell=[f"unknown-{n}" for n in range(len(TABLE))])
    assert "accuracy_by_cell" not in metrics.as_dict(metrics.evaluate(nobody, LABELS))


def test_labels_are_joined_by_name():
    shuffled = TABLE[["file", "cell", "label", *LABELS[::-1]]].sample(frac=1, random_state=0)
    other = metrics.evaluate(shuffled, LABELS[::-1])
    assert {name: other[name].value for name in other} == pytest.approx({name: FOUND[name].value for name in FOUND})


def test_calibration_error_before_and_after_scaling():
    table = table_of(np.array([0] * 70 + [1] * 30), np.tile([0.9, 0.1], (100, 1)))
    logit = np.log(0.7 / 0.3) / np.log(0.9 / 0.1)  # what makes 0.9 of 0.7
    found = metrics.evaluate(table, ["k0", "k1"], Scaling(before=1.0, after=logit))
    assert found["ece"].value == pytest.approx(0.2)
    assert found["ece_calibrated"].value == pytest.approx(0, abs=1e-6)
    bars = curves.reliability(*label_arrays(table, ["k0", "k1"]))
    assert bars.images.sum() == bars.images[13] == 100
    assert (bars.confidence[13], bars.accuracy[13]) == pytest.approx((0.9, 0.7))
    assert np.isnan(bars.accuracy[0])


def test_an_applied_temperature_is_undone():
    logits = np.random.default_rng(0).normal(0, 2, (50, 3))

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(1, keepdims=True)

    assert np.allclose(scale_probabilities(softmax(logits / 2), 2.0), softmax(logits), atol=1e-6)


def test_temperature_is_recovered():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (random.random((4000, 1)) > probabilities.cumsum(1)).sum(1).clip(0, 3)
    assert fit_temperature(truth, logits * 2.0) == pytest.approx(2.0, rel=0.1)
    assert fit_temperature(truth, logits * 12.0) == pytest.approx(12.0, rel=0.1)


def test_risk_coverage_answers_the_most_confident_first():
    curve = curves.risk_coverage(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.4, 0.6]]))
    assert curve.x.tolist() == [0.25, 0.5, 1.0]  # two of them are equally sure
    assert curve.y.tolist() == [1.0, 0.5, 0.75]
    order = np.argsort(-PROBABILITIES.max(1))[: round(0.8 * len(TABLE))]
    assert FOUND["selective_accuracy"].value == pytest.approx((PREDICTED == TRUTH)[order].mean(), abs=0.01)


def test_differential_count():
    found = differential_count(["neutrophil"] * 6 + ["monocyte"] * 4, LABELS).set_index("label")
    assert found["count"].to_dict() == {"eosinophil": 0, "lymphocyte": 0, "monocyte": 4, "neutrophil": 6}
    # Wilson's interval of 6 in 10, as in Newcombe 1998
    assert found.loc["neutrophil", ["low", "high"]].tolist() == pytest.approx([0.3127, 0.8318], abs=1e-3)
    assert found["low"].min() == 0


def test_accuracy_difference_is_paired_on_shared_images():
    worse = make_predictions(8)
    worse.loc[worse.index % 3 == 0, LABELS] = 0.25
    gap = significance.accuracy_difference(TABLE, worse.sample(frac=1, random_state=1), LABELS)
    assert gap.value == pytest.approx(FOUND["accuracy"].value - metrics.evaluate(worse, LABELS)["accuracy"].value)
    assert 0 < gap.low < gap.value < gap.high and gap.excludes_zero
    same = significance.accuracy_difference(TABLE, TABLE, LABELS)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    # the draws of two reports are paired too
    one, two = (metrics.report(table, LABELS).scores["accuracy"] for table in (TABLE, worse))
    paired = bootstrap.percentile_interval(one.value - two.value, one.draws - two.draws)
    assert (paired.value, paired.low, paired.high) == pytest.approx((gap.value, gap.low, gap.high), abs=1e-6)
    with pytest.raises(ValueError, match="different pictures"):
        significance.accuracy_difference(TABLE, TABLE.assign(file="other.png"), LABELS)


def test_mcnemar_counts_cells():
    truth = np.zeros(30, int)
    cells = np.arange(30) // 3
    sure, wrong = np.tile([0.9, 0.1], (30, 1)), np.tile([0.1, 0.9], (30, 1))
    mixed = np.where((cells < 7)[:, None], wrong, sure)
    test = significance.mcnemar(table_of(truth, sure, cells), table_of(truth, mixed, cells), ["k0", "k1"])
    assert (test.first_only, test.second_only) == (7, 0)
    assert test.p == pytest.approx(2 * 0.5**7)
    assert significance.mcnemar(TABLE, TABLE, LABELS).p == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_adjustment(given_p):
    found = significance.holm(given_p)
    assert (found >= np.array(given_p) - 1e-12).all() and (found <= 1).all()
    assert found.min() == pytest.approx(min(1, len(given_p) * min(given_p)))
    # what is rejected is what the step-down procedure rejects
    order, rejected = np.argsort(given_p), set()
    for rank, place in enumerate(order):
        if given_p[place] * (len(given_p) - rank) >= significance.SIGNIFICANCE_LEVEL:
            break
        rejected.add(int(place))
    assert set(np.flatnonzero(found < significance.SIGNIFICANCE_LEVEL)) == rejected


def test_all_pairs_are_compared_in_one_table():
    worse = TABLE.copy()
    worse.loc[worse.index % 2 == 0, LABELS] = worse.loc[worse.index % 2 == 0, LABELS].to_numpy()[:, ::-1]
    found = significance.compare_pairs({"a": TABLE, "b": make_predictions(4), "c": worse}, LABELS)
    assert list(zip(found["first"], found["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (found["p_holm"] >= found["p"]).all()
    assert found["significant"].tolist() == (found["p_holm"] < 0.05).tolist()
    assert significance.compare_pairs({"a": TABLE}, LABELS).empty
