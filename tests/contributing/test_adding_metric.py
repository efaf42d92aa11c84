"""A metric is one registered function."""

from __future__ import annotations

import json

FUNCTION = '''

@register_confusion_metric("geometric mean of recalls")
def geometric_mean(counts: np.ndarray) -> np.ndarray:
    """Geometric mean of the recalls of all classes."""
    return class_scores(counts)["recall"].prod(-1) ** (1 / counts.shape[-1])
'''

# scores drawn predictions, then shows them as a page and as the table of `training compare` do
SCORE = """
import json
from pages.parts import wording
from tests.making import LABELS, make_predictions
from zoo.benchmarks import scoring
from zoo.scores import metrics

report = scoring.score(make_predictions(3), LABELS)
found = scoring.intervals(report)
page = wording.scores_table({"drawn": found})
recalls = report.classes["recall"]
print(json.dumps({
    "stored": metrics.as_dict(found)["geometric_mean"],
    "expected": float(recalls.prod() ** (1 / len(LABELS))),
    "alone": metrics.estimate(make_predictions(3), LABELS, "geometric_mean").value,
    "page": dict(page[page["score"] == "geometric mean of recalls"].iloc[0]),
}))
"""


def test_a_registered_function_is_scored_stored_and_shown(project_copy):
    project_copy.append("zoo/scores/metrics.py", FUNCTION)
    found = json.loads(project_copy.python("-c", SCORE).splitlines()[-1])
    stored = found["stored"]
    assert abs(stored["value"] - found["expected"]) < 1e-9 and found["alone"] == stored["value"]
    assert 0 < stored["low"] < stored["value"] < stored["high"] < 1
    assert found["page"]["drawn"].startswith(f"{100 * stored['value']:.1f} %")
