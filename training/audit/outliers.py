"""Outliers: pictures unlike the rest in embedding, stain, colour or sharpness, and pictures that were drawn upon.

Isolation forest: Liu, Ting & Zhou 2008, doi:10.1109/ICDM.2008.17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from training.audit.measure import Measured

COMPONENTS = 16  # of the embedding
TREES = 200
LIMIT = 15.0  # robust deviations; on a trial set cells reached 12.0, and 29 of 30 foreign pictures exceeded 19
MAX_DEVIATION = 20.0  # of one statistic, so that none decides alone without being extreme
MIN_PICTURES = 20  # pictures below which nothing can be called unusual
MAX_RARE = 0.002  # share of subjects with a colour, up to which it is foreign to the data set
MIN_FOREIGN = 12  # foreign colours that make a mark


@dataclass(frozen=True)
class Outliers:
    """`score` (n,) in robust deviations, `rows` that are flagged (worst first), `marked` rows with foreign colours."""

    score: np.ndarray
    rows: tuple[int, ...]
    marked: tuple[int, ...]


def find_outliers(measured: Measured, subject: np.ndarray, seed: int = 0) -> Outliers:
    """Outliers among readable rows; `subject` numbers what each row shows, so that copies count once."""
    rows = np.flatnonzero(measured.readable)
    score = np.zeros(len(measured.problems), np.float32)
    if len(rows) < MIN_PICTURES:
        return Outliers(score, (), ())
    numbers = subject[rows]
    parts = components(np.asarray(measured["embedding"][rows], np.float32), COMPONENTS, seed)
    parts /= parts.std(0) + 1e-6
    simple = simple_statistics(measured)[rows]
    confidence = 1 - np.asarray(measured["confidence"])[rows]
    table = np.column_stack([parts, deviations(simple), deviations(confidence)])
    forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(table)
    score[rows] = (
        deviations(-forest.score_samples(table)).clip(0, MAX_DEVIATION)
        + deviations(confidence).clip(0, MAX_DEVIATION)
        + np.abs(deviations(simple)).clip(0, MAX_DEVIATION).mean(1)
    )
    ranked = rows[np.argsort(-score[rows], kind="stable")]
    flagged = tuple(int(row) for row in ranked if score[row] > LIMIT)
    return Outliers(score, flagged, _marked(measured, rows, numbers))


def components(embedding: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The first principal components of embeddings (n, d), at most `count`."""
    count = min(count, *embedding.shape)
    return PCA(count, random_state=seed, svd_solver="randomized").fit_transform(embedding)


def simple_statistics(measured: Measured) -> np.ndarray:
    """Mean and spread of each channel, and sharpness, (n, 7)."""
    return np.column_stack([measured["mean"], measured["spread"], np.asarray(measured["sharpness"])])


def deviations(values: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations (1.4826 median absolute deviations), column by column."""
    away = values - np.median(values, axis=0)
    return away / (1.4826 * np.median(np.abs(away), axis=0) + 1e-6)


def _marked(measured: Measured, rows: np.ndarray, numbers: np.ndarray) -> tuple[int, ...]:
    """Rows with many colours that hardly any other subject has: arrows, text, scale bars, pasted parts."""
    has = np.unpackbits(np.asarray(measured["colours"])[rows], axis=1).astype(bool)
    _, place = np.unique(numbers, return_inverse=True)
    subjects = np.zeros((place.max() + 1, has.shape[1]), bool)
    np.logical_or.at(subjects, place, has)
    rare = subjects.sum(0) <= max(1, MAX_RARE * len(subjects))
    foreign = (has & rare).sum(1)
    order = np.argsort(-foreign, kind="stable")
    return tuple(int(rows[i]) for i in order if foreign[i] >= MIN_FOREIGN)
