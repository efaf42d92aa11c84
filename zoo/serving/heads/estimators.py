"""Shapes and values that a head's estimators must have. scikit-learn's C code follows them unchecked.

Each check is of plain data (see `graph`), before anything is built. It reads the attributes that predicting reads, and
allows no others than the class has of itself, since an attribute could stand in for a method or a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.entry import EntryError
from zoo.serving.heads.graph import Part

MAX_STEPS, MAX_TREES, MAX_CLASSES, MAX_WIDTH = 8, 10_000, 1000, 10_000_000
MAX_JOBS, MAX_DEGREE, MAX_FITS = 64, 20, 100
NO_CHILD = -1  # child of a tree's leaf
KERNELS = {"linear", "poly", "rbf", "sigmoid"}
METRICS = {
    *("euclidean", "l1", "l2", "manhattan", "cityblock", "cosine", "chebyshev", "minkowski", "sqeuclidean"),
    *("correlation", "braycurtis", "canberra"),
}
NODES = np.dtype(  # sklearn.tree._tree.NODE_DTYPE
    {
        "names": [
            *("left_child", "right_child", "feature", "threshold", "impurity", "n_node_samples"),
            *("weighted_n_node_samples", "missing_go_to_left"),
        ],
        "formats": ["<i8", "<i8", "<i8", "<f8", "<f8", "<i8", "<f8", "u1"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)

ANY = "_sklearn_version n_features_in_ n_jobs random_state verbose class_weight classes_"
FIELDS: Mapping[str, frozenset[str]] = {
    name: frozenset(f"{ANY} {own}".split())
    for name, own in {
        "Pipeline": "steps memory transform_input",
        "PCA": "n_components copy whiten svd_solver tol iterated_power n_oversamples power_iteration_normalizer "
        "_fit_svd_solver mean_ noise_variance_ n_samples_ n_components_ components_ explained_variance_ "
        "explained_variance_ratio_ singular_values_",
        "StandardScaler": "with_mean with_std copy n_samples_seen_ mean_ var_ scale_",
        "KNeighborsClassifier": "n_neighbors radius algorithm leaf_size metric metric_params p weights outputs_2d_ _y "
        "effective_metric_params_ effective_metric_ _fit_method _fit_X n_samples_fit_ _tree",
        "SVC": "C kernel degree gamma coef0 tol nu epsilon shrinking probability cache_size max_iter break_ties "
        "decision_function_shape _sparse class_weight_ _gamma _effective_probability support_ support_vectors_ "
        "_n_support dual_coef_ intercept_ _dual_coef_ _intercept_ _probA _probB fit_status_ _num_iter n_iter_ "
        "shape_fit_",
        "CalibratedClassifierCV": "estimator method cv ensemble calibrated_classifiers_",
        "_CalibratedClassifier": "estimator calibrators classes method",
        "_SigmoidCalibration": "a_ b_",
        "RandomForestClassifier": "estimator n_estimators estimator_params bootstrap oob_score warm_start max_samples "
        "criterion max_depth min_samples_split min_samples_leaf min_weight_fraction_leaf max_features max_leaf_nodes "
        "min_impurity_decrease monotonic_cst ccp_alpha _n_samples n_outputs_ n_classes_ _sample_weight "
        "_n_samples_bootstrap estimator_ estimators_ oob_score_ oob_decision_function_",
        "DecisionTreeClassifier": "criterion splitter max_depth min_samples_split min_samples_leaf max_features "
        "min_weight_fraction_leaf max_leaf_nodes min_impurity_decrease monotonic_cst ccp_alpha n_outputs_ n_classes_ "
        "max_features_ tree_",
        "Tree": "max_depth node_count nodes values",
    }.items()
}
PARTS = {"steps", "estimators_", "estimator", "estimator_", "tree_", "calibrated_classifiers_", "calibrators"}


def check_head(head: Any, classes: int, width: int | None = None) -> int:
    """Check a whole classifier before it is built.

    Args:
        head: What a file holds, see `graph.read_graph`.
        classes: Number of the entry's labels.
        width: Length of the vectors that the entry's network computes; None: not known yet.

    Returns:
        Length of the vectors that it classifies.

    Raises:
        EntryError: It is no classifier of these labels and vectors, or contradicts itself.
    """
    steps = _steps(head) if isinstance(head, Part) and head.name == "Pipeline" else [head]
    last = steps[-1]
    if not all(isinstance(step, Part) for step in steps) or last.name not in CLASSIFIERS:
        raise EntryError(f"it is no classifier for {classes} classes.")
    expected = _count(steps[0], "n_features_in_", 1, MAX_WIDTH)
    if width is not None and expected != width:
        raise EntryError(f"it classifies vectors of {expected:,} numbers; the entry's network gives {width:,}.")
    found = expected
    for step in steps[:-1]:
        if step.name not in TRANSFORMERS:
            raise EntryError(f"it holds {step.name} where vectors are prepared, which is not loaded.")
        _check_fields(step)
        found = TRANSFORMERS[step.name](step, found)
    numbers = _class_numbers(last, "classes_")
    if numbers.dtype.kind not in "iu" or numbers[0] < 0 or numbers[-1] >= classes:
        raise EntryError(f"it is no classifier for {classes} classes.")
    _check_fields(last)
    CLASSIFIERS[last.name](last, found, len(numbers))
    return expected


def _steps(pipeline: Part) -> list[Any]:
    _check_fields(pipeline)
    steps: Any = pipeline.fields.get("steps")
    _require(isinstance(steps, list) and 0 < len(steps) <= MAX_STEPS, pipeline, "steps")
    pairs = [step for step in steps if isinstance(step, tuple) and len(step) == 2 and isinstance(step[0], str)]
    _require(len(pairs) == len(steps) and len({name for name, _ in pairs}) == len(steps), pipeline, "steps")
    _require(pipeline.fields.get("memory") is None, pipeline, "memory")
    _require(pipeline.fields.get("transform_input") is None, pipeline, "transform_input")
    return [part for _, part in pairs]


def _check_pca(part: Part, width: int) -> int:
    count = _count(part, "n_components_", 1, width)
    _array(part, "mean_", "f", (width,))
    _array(part, "components_", "f", (count, width))
    variances = _array(part, "explained_variance_", "f", (count,))
    _require(not part.fields.get("whiten") or (variances > 0).all(), part, "explained_variance_")
    return count


def _check_scaler(part: Part, width: int) -> int:
    for switch, name in (("with_mean", "mean_"), ("with_std", "scale_")):
        if part.fields.get(switch) is not False:
            values = _array(part, name, "f", (width,))
            _require(name == "mean_" or (values > 0).all(), part, name)
    return width


def _check_neighbours(part: Part, width: int, classes: int) -> None:
    get = part.fields.get
    stored: Any = get("_fit_X")
    count = len(stored) if isinstance(stored, np.ndarray) and stored.ndim else 0
    _array(part, "_fit_X", "f", (count, width))
    numbers = _array(part, "_y", "i", (count,))
    _require(count > 0 and numbers.min() >= 0 and numbers.max() < classes, part, "_y")
    _count(part, "n_neighbors", 1, count)
    _require(get("n_samples_fit_") == count, part, "n_samples_fit_")
    # a stored search tree is followed unchecked, like a decision tree
    _require(get("_fit_method") == "brute" and get("_tree") is None, part, "algorithm", 'set algorithm = "brute"')
    _require(get("outputs_2d_") is False, part, "outputs_2d_")
    _require(get("weights") in ("uniform", "distance"), part, "weights")
    _require(_is_one_of(get("metric"), METRICS) and _is_one_of(get("effective_metric_"), METRICS), part, "metric")
    _require(not get("metric_params"), part, "metric_params")
    options: Any = get("effective_metric_params_")
    plain = isinstance(options, dict) and set(options) <= {"p", "w"} and options.get("w") is None
    for value in (get("p"), options.get("p", 2) if plain else None):
        _require(isinstance(value, int | float) and 1 <= value <= 100, part, "p")


def _check_forest(part: Part, width: int, classes: int) -> None:
    trees: Any = part.fields.get("estimators_")
    _require(isinstance(trees, list) and 0 < len(trees) <= MAX_TREES, part, "estimators_")
    _require(part.fields.get("n_outputs_") == 1, part, "n_outputs_")
    _require(_integer(part.fields.get("n_classes_")) == classes, part, "n_classes_")
    for name in ("estimator", "estimator_"):
        _check_unfitted(part.fields.get(name), part, "DecisionTreeClassifier")
    for tree in trees:
        _require(isinstance(tree, Part) and tree.name == "DecisionTreeClassifier", part, "estimators_")
        _check_fields(tree)
        _require(_integer(tree.fields.get("n_features_in_")) == width, tree, "n_features_in_")
        _require(_integer(tree.fields.get("n_classes_")) == classes, tree, "n_classes_")
        _require(tree.fields.get("n_outputs_") == 1, tree, "n_outputs_")
        _require(isinstance(tree.fields.get("tree_"), Part), tree, "tree_")
        _check_tree(tree.fields["tree_"], width, classes)


def _check_tree(part: Part, width: int, classes: int) -> None:
    """Refuse a tree that scikit-learn would follow out of its arrays, or in a circle."""
    _require(part.name == "Tree" and len(part.arguments) == 3, part, "arguments")
    _check_fields(part)
    features, counts, outputs = part.arguments
    _require(_integer(features) == width and _integer(outputs) == 1, part, "arguments")
    sound = isinstance(counts, np.ndarray) and counts.dtype == np.int64 and counts.shape == (1,)
    _require(sound and counts[0] == classes, part, "arguments")
    nodes: Any = part.fields.get("nodes")
    _require(
        isinstance(nodes, np.ndarray) and nodes.dtype == NODES and nodes.ndim == 1 and len(nodes) > 0, part, "nodes"
    )
    count = len(nodes)
    _require(_integer(part.fields.get("node_count")) == count, part, "node_count")
    _count(part, "max_depth", 0, count)
    values = _array(part, "values", "f", (count, 1, classes))
    _require(values.dtype == np.float64 and (values >= 0).all(), part, "values")
    inner = nodes["left_child"] != NO_CHILD
    children = np.concatenate([nodes["left_child"][inner], nodes["right_child"][inner]])
    split = nodes["feature"][inner]
    # a child behind its parent cannot lead back to it
    behind = (children > np.tile(np.flatnonzero(inner), 2)).all() and (children < count).all()
    if not behind or (split < 0).any() or (split >= width).any():
        raise EntryError("it holds a tree that points outside of itself; it is damaged.")


def _check_calibrated(part: Part, width: int, classes: int) -> None:
    fits: Any = part.fields.get("calibrated_classifiers_")
    _require(isinstance(fits, list) and 0 < len(fits) <= MAX_FITS, part, "calibrated_classifiers_")
    _check_unfitted(part.fields.get("estimator"), part, "SVC")
    for fit in fits:
        _require(isinstance(fit, Part) and fit.name == "_CalibratedClassifier", part, "calibrated_classifiers_")
        _check_fields(fit)
        _require(len(_class_numbers(fit, "classes")) == classes, fit, "classes")
        _require(fit.fields.get("method") == "sigmoid", fit, "method")
        machine, curves = fit.fields.get("estimator"), fit.fields.get("calibrators")
        _require(isinstance(machine, Part) and machine.name == "SVC", fit, "estimator")
        _check_machine(machine, width, classes)
        _require(isinstance(curves, list) and len(curves) == (classes if classes > 2 else 1), fit, "calibrators")
        for curve in curves:
            _require(isinstance(curve, Part) and curve.name == "_SigmoidCalibration", fit, "calibrators")
            _check_fields(curve)
            for name in ("a_", "b_"):
                _require(isinstance(curve.fields.get(name), float), curve, name)  # numpy's float64 is one


def _check_machine(part: Part, width: int, classes: int) -> None:
    """Refuse a support vector machine whose arrays are not as long as libsvm takes them to be."""
    _check_fields(part)
    get = part.fields.get
    _require(_integer(get("n_features_in_")) == width and get("_sparse") is False, part, "n_features_in_")
    _require(len(_class_numbers(part, "classes_")) == classes > 1, part, "classes_")
    vectors: Any = get("support_vectors_")
    count = len(vectors) if isinstance(vectors, np.ndarray) and vectors.ndim else 0
    pairs = classes * (classes - 1) // 2
    _require(count > 0, part, "support_vectors_")
    _array(part, "support_vectors_", "f8", (count, width))
    numbers = _array(part, "_n_support", "i4", (classes,))
    _require((numbers >= 0).all() and int(numbers.sum(dtype=np.int64)) == count, part, "_n_support")
    _array(part, "support_", "i4", (count,))
    for name in ("dual_coef_", "_dual_coef_"):
        _array(part, name, "f8", (classes - 1, count))
    for name in ("intercept_", "_intercept_"):
        _array(part, name, "f8", (pairs,))
    for name in ("_probA", "_probB"):
        _array(part, name, "f8", (0,))
    _require(_is_one_of(get("kernel"), KERNELS), part, "kernel")
    _count(part, "degree", 0, MAX_DEGREE)
    for name in ("_gamma", "coef0"):
        _require(isinstance(get(name), int | float), part, name)
    _require(get("decision_function_shape") in ("ovr", "ovo"), part, "decision_function_shape")


def _check_unfitted(part: Any, owner: Part, kind: str) -> None:
    """Refuse anything but an estimator of a kind that holds no further parts: it is built, but never predicts."""
    sound = isinstance(part, Part) and part.name == kind and not _holds_parts(list(part.fields.values()))
    _require(sound, owner, "estimator")
    _check_fields(part)


def _holds_parts(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, Part) or (isinstance(value, list | tuple) and any(_holds_parts(one) for one in value))


TRANSFORMERS: Mapping[str, Callable[[Part, int], int]] = {"PCA": _check_pca, "StandardScaler": _check_scaler}
CLASSIFIERS: Mapping[str, Callable[[Part, int, int], None]] = {
    "KNeighborsClassifier": _check_neighbours,
    "CalibratedClassifierCV": _check_calibrated,
    "RandomForestClassifier": _check_forest,
}


def _require(sound: object, part: Part, field: str, advice: str = "") -> None:
    """Raise EntryError unless a field is as it has to be."""
    if not sound:
        raise EntryError(f"{part.name}.{field} is not as a fitted one has it; {advice or 'it is damaged'}.")


def _check_fields(part: Part) -> None:
    """Allow the class's own attributes only, and a sane number of threads."""
    unknown = [name for name in part.fields if name not in FIELDS[part.name]]
    if unknown:
        raise EntryError(f"{part.name}.{unknown[0][:60]} is not loaded: heads do not have it.")
    for name, value in part.fields.items():
        _require(name in PARTS or not _holds_parts(value), part, name)
    jobs = part.fields.get("n_jobs")
    _require(jobs is None or (type(jobs) is int and -MAX_JOBS <= jobs <= MAX_JOBS and jobs != 0), part, "n_jobs")


def _integer(value: Any) -> int | None:
    """An integer of Python or numpy; None for anything else."""
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def _count(part: Part, name: str, low: int, high: int) -> int:
    """An integer field within limits. Raises EntryError."""
    value = _integer(part.fields.get(name))
    if value is None or not low <= value <= high:
        raise EntryError(f"{part.name}.{name} is not from {low:,} to {high:,}; it is damaged.")
    return value


def _array(part: Part, name: str, kind: str, shape: Sequence[int]) -> np.ndarray:
    """An array field of a kind (such as "f" or "i4") and shape. Raises EntryError."""
    value = part.fields.get(name)
    if not isinstance(value, np.ndarray) or not value.dtype.str[1:].startswith(kind) or value.shape != tuple(shape):
        raise EntryError(f"{part.name}.{name} is not of the shape {tuple(shape)}; it is damaged.")
    return value


def _class_numbers(part: Part, name: str) -> np.ndarray:
    """Class numbers, ascending. Raises EntryError."""
    numbers: Any = part.fields.get(name)
    sound = isinstance(numbers, np.ndarray) and numbers.ndim == 1 and 0 < len(numbers) <= MAX_CLASSES
    if not sound or numbers.dtype.kind not in "iuf" or not (np.diff(numbers) > 0).all():
        raise EntryError(f"{part.name}.{name} does not number its classes; it is no classifier of an entry.")
    return numbers


def _is_one_of(value: Any, names: set[str]) -> bool:
    return isinstance(value, str) and value in names
