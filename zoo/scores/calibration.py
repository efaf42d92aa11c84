"""Temperature scaling of an entry: what its stored probabilities had applied, and what unseen laboratories need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zoo.entry import Entry, EntryError, read_predictions
from zoo.scores.predictions import label_arrays
from zoo.scores.sample.samples import Sample, samples
from zoo.scores.temperature import AS_STORED, MIN_PROBABILITY, Scaling, fit_temperature, scale_probabilities


def is_scaled(entry: Entry) -> bool:
    """Whether the entry's stored probabilities are temperature-scaled already."""
    ours = entry.config.zoo
    return ours.fitted_temperature is not None or ours.temperature != 1


def sample_called(entry: Entry, name: str) -> Sample | None:
    """The sample that a record of the entry was asked with, by its name; None where it is not known or not stated."""
    own = entry.default_sample
    return own if own.name == name else samples().get(name)


def scaling_of(entry: Entry, sample: Sample | None = None) -> Scaling:
    """Exponents that give an entry's probabilities before and after temperature scaling.

    A temperature is taken from the entry's config where it has one, else fitted on the entry's stored validation
    predictions (Guo et al. 2017, arXiv:1706.04599). Where labels were mapped, it is applied to the mapped
    probabilities.

    Args:
        entry: A published entry.
        sample: Sample that its answers were asked with; None where they are the network's own or conditioned ones.

    Returns:
        The exponents, and the sample's weights; AS_STORED where the entry has neither a temperature nor readable
        validation predictions.
    """
    found = _own_scaling(entry)
    if sample is None or sample.as_trained or found == AS_STORED:
        return found
    ratio = entry.prior_of(sample) / entry.trained_prior.shares
    return replace(found, weights=dict(zip(entry.labels, ratio.tolist(), strict=True)))


def scaling_on(entry: Entry, benchmark: str) -> Scaling:
    """Scaling of an entry's stored answers on a benchmark, asked with the sample that its record names."""
    return scaling_of(entry, sample_called(entry, entry.evaluation.benchmarks[benchmark].sample))


def _own_scaling(entry: Entry) -> Scaling:
    """Exponents for the network's own probabilities."""
    ours = entry.config.zoo
    if is_scaled(entry):
        return Scaling((ours.fitted_temperature or 1.0) * ours.temperature, 1.0)
    for name, benchmark in entry.evaluation.benchmarks.items():
        if benchmark.role == "validation":
            try:
                table = read_predictions(entry, name)
            except EntryError:
                continue
            truth, probabilities = label_arrays(table, benchmark.labels)
            logits = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
            return Scaling(1.0, 1 / fit_temperature(truth, logits))
    return AS_STORED


def unseen_laboratory_confidence(entry: Entry, network: np.ndarray, sample: Sample, best: int) -> float | None:
    """Confidence to expect if the picture comes from a laboratory that the model was not trained on.

    This is the answer's probability after the temperature that was needed on laboratories which the entry, or models of
    its recipe, were not trained on, asked with the same sample.

    Args:
        entry: The entry that answered.
        network: The network's probabilities, (classes,).
        sample: The sample that it was asked with.
        best: Class number of the answer.

    Returns:
        A probability; None where no such temperature was measured.
    """
    temperature = entry.unseen_temperature
    if temperature is None:
        return None
    return float(entry.apply_sample(scale_probabilities(network[None], 1 / temperature), sample)[0, best])
