"""Classical classifiers (k nearest neighbours, SVM, random forest) in place of a network's last layer.

A head is a scikit-learn pipeline on the features of a network, or on raw pixels, stored in `head.skops`. Nothing of
that file is unpickled, and all of it is checked before anything is built: sizes, types and references in `graph`,
shapes and values in `estimators`. `network` puts a head behind a network in torch.
"""

from zoo.serving.heads.load import check_head_file, check_storable, load_head, read_head
from zoo.serving.heads.model import ClassicalHead, Classifier, Neighbour, read_neighbours

__all__ = [
    "ClassicalHead",
    "Classifier",
    "Neighbour",
    "check_head_file",
    "check_storable",
    "load_head",
    "read_head",
    "read_neighbours",
]
