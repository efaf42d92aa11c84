"""Checkpoints of other versions and of other trainings."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.training.fit.drawn import recipe
from training.fit.checkpoint import CheckpointError, previous_path, read_facts
from training.fit.state import CHECKPOINT


class Stop(Exception):
    pass


def stop(figures):
    raise Stop


@pytest.fixture
def checkpoint(run, tmp_path):
    """A training stopped after its first epoch."""
    with pytest.raises(Stop):
        run("work", after_epoch=stop)
    return tmp_path / "work" / CHECKPOINT


def rewrite(path, change):
    """Change the facts of a checkpoint."""
    with safe_open(str(path), "pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    facts = json.loads(header["facts"])
    change(facts)
    save_file(tensors, str(path), {"numbers": header["numbers"], "facts": json.dumps(facts)})  # none had a digest


def to_version_1(facts, **options):
    """Facts as they were before recipes had versions."""
    made = {key: facts.pop(key) for key in ("version", "recipe", "split", "processes")}
    content = made["recipe"]
    for table, values in options.items():
        content[table] = {**content.get(table, {}), **values}
    facts["key"] = f"{json.dumps(content)} {made['split']} {made['processes']}"


def test_continues_a_checkpoint_of_version_1(run, checkpoint):
    whole = run("whole")
    rewrite(checkpoint, to_version_1)
    assert "version" not in read_facts(checkpoint)
    resumed = run("work", resume=True)
    assert resumed.history == whole.history
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_refuses_a_checkpoint_with_a_removed_option(run, checkpoint):
    rewrite(checkpoint, lambda facts: to_version_1(facts, augment={"mixstyle": 0.5}))
    with pytest.raises(CheckpointError, match=r"checkpoint version 1 and cannot be continued: augment\.mixstyle=0\.5"):
        run("work", resume=True)


def test_refuses_a_checkpoint_of_a_newer_version(run, checkpoint):
    rewrite(checkpoint, lambda facts: facts.update(version=3))
    with pytest.raises(CheckpointError, match="checkpoint version 3, by a newer HemaZoo"):
        run("work", resume=True)


@pytest.mark.parametrize("version", [1, 2])
def test_refuses_a_checkpoint_of_another_recipe(run, checkpoint, version):
    if version == 1:
        rewrite(checkpoint, to_version_1)
    with pytest.raises(CheckpointError, match="made with another recipe"):
        run("work", resume=True, optimizer={"lr": 1e-3})


def test_keeps_the_recipe_and_its_version(checkpoint):
    facts = read_facts(checkpoint)
    assert facts["version"] == 2
    assert facts["recipe"] == json.loads(recipe().fingerprint())
    assert facts["processes"] == 1


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def changed_by_one_bit(path):
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, changed_by_one_bit])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_offered(run, tmp_path, damage):
    """Renamed, as the sentence says, the one before leads to the same weights."""
    whole = run("whole")
    epochs: list[object] = []

    def stop_after_two(figures):
        epochs.append(figures)
        if len(epochs) == 2:
            raise Stop

    with pytest.raises(Stop):
        run("work", after_epoch=stop_after_two)
    checkpoint = tmp_path / "work" / CHECKPOINT
    damage(checkpoint)
    before = previous_path(checkpoint)
    with pytest.raises(CheckpointError, match=f"Rename {before} to {CHECKPOINT} to continue"):
        run("work", resume=True)
    before.replace(checkpoint)
    resumed = run("work", resume=True)
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
