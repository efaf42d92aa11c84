"""The prior shares of a sample give the Bayes answer, and samples are read or refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.scores.sample.priors import apply_prior, flatten, largest_exponent
from zoo.scores.sample.samples import (
    ALIKE,
    BLOOD,
    SampleError,
    find_sample,
    flattening,
    from_counts,
    only_these,
    reference_shares,
    samples,
)
from zoo.scores.temperature import Scaling, scale_probabilities

KINDS = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "ig", "erythroblast", "platelet"]
UNIFORM = np.full(len(KINDS), 1 / len(KINDS))


def made_network(observed: np.ndarray, errors: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Posterior of a network that knows P(observation | kind) exactly and was trained with these shares."""
    joint = errors[:, observed].T * trained
    return joint / joint.sum(1, keepdims=True)


@pytest.mark.parametrize("trained", [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1]])
def test_a_network_with_known_errors_gives_the_bayes_answer(trained):
    """The answer is as accurate as Bayes' rule with the true shares, and more so than the network's own."""
    errors = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])  # row: kind, column: what is observed
    trained, shares = np.array(trained), np.array([0.05, 0.15, 0.8])
    random = np.random.default_rng(0)
    truth = random.choice(3, 20_000, p=shares)
    observed = np.array([random.choice(3, p=errors[kind]) for kind in truth])
    network = made_network(observed, errors, trained)
    found = apply_prior(network, shares, trained)
    bayes = made_network(observed, errors, shares)
    assert np.allclose(found, bayes)
    right, before = (found.argmax(1) == truth).mean(), (network.argmax(1) == truth).mean()
    assert right == (bayes.argmax(1) == truth).mean() > before + 0.05
    # calibrated in the sample: of answers given with p, a share of p is right
    top = found.max(1)
    assert top.mean() == pytest.approx(right, abs=0.01)


def test_probabilities_sum_to_one_and_follow_the_formula():
    random = np.random.default_rng(1)
    network, prior, trained = (
        random.dirichlet(np.ones(8), 50),
        random.dirichlet(np.ones(8)),
        random.dirichlet(np.ones(8)),
    )
    found = apply_prior(network, prior, trained)
    assert np.allclose(found.sum(1), 1)
    assert np.allclose(
        found[:, 0] / found[:, 3], network[:, 0] / network[:, 3] * (prior[0] / trained[0]) / (prior[3] / trained[3])
    )
    assert np.allclose(apply_prior(network, 7 * prior, trained), found)  # only ratios count
    assert np.allclose(apply_prior(network, trained, trained), network)


def test_fewer_kinds_are_conditioned_on_not_added_up():
    network = np.array([[0.5, 0.1, 0.0, 0.0, 0.0, 0.4, 0.0, 0.0]])
    sample = only_these(["neutrophil", "lymphocyte"])
    found = sample.apply(network, KINDS, UNIFORM)[0]
    assert found[:2] == pytest.approx([5 / 6, 1 / 6])  # "ig" goes to nobody
    assert found[2:].sum() == 0


def test_what_a_sample_leaves_nothing_of_becomes_the_prior():
    network = np.eye(8)[[5]]
    assert only_these(["neutrophil", "monocyte"]).apply(network, KINDS, UNIFORM)[0, [0, 2]].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("prior", "trained"), [([-1, 2], [0.5, 0.5]), ([0, 0], [0.5, 0.5]), ([np.nan, 1], [0.5, 0.5]), ([1, 1], [0, 1])]
)
def test_impossible_shares_are_refused(prior, trained):
    with pytest.raises(ValueError, match="must be numbers"):
        apply_prior(np.array([[0.5, 0.5]]), np.array(prior), np.array(trained))


def test_alike_leaves_a_network_as_it_was_trained():
    network = np.random.default_rng(2).dirichlet(np.ones(8), 20)
    for trained in (UNIFORM, np.random.default_rng(3).dirichlet(np.ones(8))):
        assert np.allclose(samples()[ALIKE].apply(network, KINDS, trained), network)


@pytest.mark.parametrize("name", list(samples()))
def test_every_sample_says_what_it_is_and_where_its_shares_come_from(name):
    sample = samples()[name]
    assert sample.summary.endswith(".") and sample.source
    assert all(weight >= 0 for weight in sample.weights.values())


def test_in_blood_no_white_kind_needs_ten_times_the_evidence_and_immature_cells_are_rare():
    blood = samples()[BLOOD]
    white = [blood.weights[kind] for kind in reference_shares(BLOOD)]
    assert max(white) / min(white) <= 10
    assert np.mean(white) == pytest.approx(1)
    assert blood.weights["ig"] == blood.weights["erythroblast"] == pytest.approx(0.01)
    shares = np.array(list(reference_shares(BLOOD).values()))
    assert 0 <= flattening() <= largest_exponent(shares, 10)
    assert np.ptp(flatten(shares, 0)) == 0
    expected = samples()["peripheral blood, immature cells expected"].weights["ig"]
    assert expected == pytest.approx(np.sqrt(0.01 * samples()["bone marrow"].weights["ig"]), rel=0.2)


def test_samples_are_found_by_name_and_by_kinds():
    assert find_sample("Peripheral-Blood") == samples()[BLOOD]
    assert find_sample("only:monocyte, ig").weights == {"monocyte": 1.0, "ig": 1.0}
    assert find_sample("only:monocyte").prior(KINDS, UNIFORM).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blod", "There is no sample “blod”. Choose peripheral blood"),
        ("only these kinds", "needs the kinds"),
        ("only:", "needs the kinds"),
        ("nowhere.toml", "nowhere.toml cannot be read"),
    ],
)
def test_unknown_samples_are_refused_with_a_sentence(text, sentence):
    with pytest.raises(SampleError, match=sentence):
        find_sample(text)


def test_own_shares_and_counts(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('name = "clinic"\n[shares]\nneutrophil = 60\nlymphocyte = 40\n[odds]\nplatelet = 0\n')
    sample = find_sample(str(path))
    prior = sample.prior(KINDS, UNIFORM)
    assert sample.name == "clinic"
    assert prior[0] / prior[1] == pytest.approx(1.5) and prior[7] == 0
    assert 0 < prior[2] < 0.01 * prior[0] + 1e-9  # not named: rare, not ruled out
    path.write_text("[counts]\nneutrophil = 99\nmonocyte = 0\n")
    counted = find_sample(str(path)).prior(KINDS, UNIFORM)
    assert counted[0] / counted[2] == pytest.approx(100) and find_sample(str(path)).name == "my"
    assert from_counts({"neutrophil": 9, "monocyte": 4}).weights["neutrophil"] == pytest.approx(10 / 7.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("shares = [", "is not a TOML file"),
        ("[shares]\nneutrophil = -1\n", "numbers from 0"),
        ("[shares]\nneutrophil = 0\n", "not all shares can be 0"),
        ("[shares]\nneutrophil = nan\n", "numbers from 0"),
        ('name = "x"\n', "either shares or counts"),
        ("[share]\nneutrophil = 1\n", "share"),
        ("[shares]\nneutrophil = 1\n[counts]\nneutrophil = 1\n", "either shares or counts"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SampleError, match=sentence):
        find_sample(str(path))


def test_a_misspelt_kind_is_named(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[shares]\nneutrophils = 60\nlymphocyte = 40\n")
    with pytest.raises(SampleError, match="names neutrophils, which is no class of this model"):
        find_sample(str(path)).prior(KINDS, UNIFORM)
    assert samples()[BLOOD].prior(["monocyte", "neutrophil"], np.array([0.5, 0.5])).sum() == pytest.approx(1)
    with pytest.raises(SampleError, match="rules out every class"):
        only_these(["platelet"]).prior(["monocyte", "neutrophil"], np.array([0.5, 0.5]))


def test_a_temperature_belongs_to_the_network_and_the_prior_comes_after_it():
    random = np.random.default_rng(4)
    network, trained = random.dirichlet(np.ones(8), 30), random.dirichlet(np.ones(8)) + 0.01
    prior = samples()[BLOOD].prior(KINDS, trained)
    scaling = Scaling(2.5, 1.0, dict(zip(KINDS, prior / trained, strict=True)))
    asked = apply_prior(network, prior, trained)
    expected = apply_prior(scale_probabilities(network, 2.5), prior, trained)
    assert np.allclose(scaling.apply(asked, KINDS, scaling.before), expected)
    assert not np.allclose(scale_probabilities(asked, 2.5), expected)
    order = KINDS[::-1]
    assert np.allclose(scaling.apply(asked[:, ::-1], order, 2.5), expected[:, ::-1])
    assert np.allclose(scaling.apply(asked, KINDS, 1.0), asked)
