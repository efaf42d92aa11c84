"""The engine with many clients: fairness, batches, memory, failures and cancellation, and slow methods in between."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.making import ARCHITECTURES, LABELS, make_entry
from tests.zoo.serving.test_heads import ensemble, make_headed
from tests.zoo.serving.test_runtime import hold
from zoo.attribution import METHODS, ExplanationError
from zoo.entry import EntryError, read_entry
from zoo.entry.write import write_neighbours
from zoo.serving.client_queues import QueueLimits
from zoo.serving.requests import Client, ExplanationRequest, StoppedError
from zoo.serving.runtime import BusyError, Runtime, methods_for
from zoo.sources.catalogue import FolderSource, list_entries

NAMES = [name.replace("_", "-") for name in ARCHITECTURES]


@pytest.fixture
def small(tiny_zoo: Path):
    return read_entry(tiny_zoo / "tiny-test-resnet")


@pytest.fixture
def runtime():
    with Runtime("cpu", "fp32", batch_size=4) as running:
        yield running


def test_many_requests_of_one_client_do_not_delay_another(small, cells, runtime):
    order = []
    blocker = hold(runtime, small)
    many, one = Client("many"), Client("one")
    first = runtime.submit(small, cells[0], client=many)
    time.sleep(0.1)  # it is being worked on now, and everything else waits
    crowd = [runtime.submit(small, cell, client=many) for cell in (cells * 4)[:40]]
    late = runtime.submit(small, cells[1], client=one)
    assert runtime.engine.ahead(late) == 1
    assert runtime.engine.ahead(crowd[-1]) == 40
    for name, ticket in [("first", first), *(("many", t) for t in crowd), ("one", late)]:
        ticket.add_done_callback(lambda _, name=name: order.append(name))
    blocker.set()
    assert all(ticket.result(30) for ticket in [first, late, *crowd])
    assert order.index("one") <= 4
    assert runtime.engine.ahead(late) == 0


def test_drops_requests_of_clients_that_have_gone(small, cells, runtime):
    here, done = [True], []
    model = runtime.model(small)
    real = model.run
    blocker = threading.Event()
    model.run = lambda pictures, *rest: (blocker.wait(30), done.append(len(pictures)), real(pictures, *rest))[2]
    mine = Client("mine", lambda: here[0])
    first = runtime.submit(small, cells[0], client=mine)
    time.sleep(0.1)
    gone = [runtime.submit(small, cell, client=mine) for cell in cells]
    other = runtime.submit(small, cells[0], client=Client("other"))
    here[0] = False
    blocker.set()
    assert other.result(30)
    assert first.result(30)  # was under way
    for ticket in gone:
        with pytest.raises(CancelledError):
            ticket.result(30)
    assert sum(done) == 2
    assert runtime.waiting() == 0


def test_work_that_was_stopped_does_not_take_later_work_of_its_client_along(small, cells, runtime):
    blocker = hold(runtime, small)
    first = runtime.submit(small, cells[0])
    time.sleep(0.1)  # it is being worked on now
    stopped = [runtime.submit(small, cell, client=Client("mine", lambda: False)) for cell in cells[:5]]
    later = [runtime.submit(small, cell, client=Client("mine")) for cell in cells[:5]]
    blocker.set()
    assert first.result(30)
    assert all(ticket.result(30) for ticket in later)
    assert all(ticket.cancelled() for ticket in stopped)


def test_a_batch_waits_for_more_requests(small, cells):
    sizes = []
    with Runtime("cpu", "fp32", batch_size=8, batch_wait=0.5) as runtime:
        model = runtime.model(small)
        real = model.run
        model.run = lambda pictures, *rest: (sizes.append(len(pictures)), real(pictures, *rest))[1]
        tickets = []
        for cell in cells[:8]:
            tickets.append(runtime.submit(small, cell))
            time.sleep(0.01)
        assert all(ticket.result(30) for ticket in tickets)
    assert sizes == [8]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_retries_in_half_batches_when_out_of_memory(small, cells, error):
    sizes = []
    with Runtime("cpu", "fp32", batch_size=8, batch_wait=0.3) as runtime:
        model = runtime.model(small)
        real = model.run

        def little(pictures, *rest):
            sizes.append(len(pictures))
            if len(pictures) > 3:
                raise error
            return real(pictures, *rest)

        model.run = little
        tickets = [runtime.submit(small, cell) for cell in cells[:8]]
        assert all(ticket.result(30) for ticket in tickets)
        assert sizes == [8, 4, 2, 2, 4, 2, 2]
        # what was learnt is kept: nothing is tried in vain again
        sizes.clear()
        assert all(ticket.result(30) for ticket in [runtime.submit(small, cell) for cell in cells[:8]])
        assert max(sizes) == 2


def test_one_picture_too_large_for_memory_gives_an_error_message(small, cells, runtime):
    def none(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    runtime.model(small).run = none
    with pytest.raises(BusyError, match="Choose a smaller model"):
        runtime.classify(small, cells[0])


def test_replaces_a_worker_that_ended(small, tiny_zoo, cells, runtime):
    other = read_entry(tiny_zoo / "tiny-cnn60")
    model = runtime.model(small)
    runtime.model(other)
    real, blocker = model.run, threading.Event()

    def die(*_):
        blocker.wait(30)
        raise SystemExit("killed by a test")

    model.run = die
    hit = runtime.submit(small, cells[0], client=Client("a"))
    time.sleep(0.1)
    waiting = runtime.submit(other, cells[0], client=Client("b"))
    blocker.set()
    with pytest.raises(BusyError, match="a new one took its place"):
        hit.result(30)
    assert waiting.result(30)
    model.run = real
    assert runtime.classify(small, cells[0]).label in LABELS
    assert runtime.status().restarts == 1


def test_status(small, cells, runtime):
    assert runtime.status().images_per_second == 0
    for cell in cells:
        runtime.classify(small, cell)
    load = runtime.status()
    assert load.waiting == load.slow == 0
    assert load.batch_size == 1
    assert 0 < load.p50 <= load.p95
    assert load.images_per_second > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_through_the_runtime(small, cells, runtime, method):
    found = runtime.explain(small, cells[0], method=method)
    assert found.method == method
    assert found.label == found.prediction.label == runtime.classify(small, cells[0]).label
    assert found.values.shape == (96, 96)
    assert 0 <= found.values.min() <= found.values.max() <= 1
    assert found.values.std() > 0


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_hardly_changes_maps(small, cells, method):
    with Runtime("cpu", "bf16") as half, Runtime("cpu", "fp32") as full:
        one, other = (running.explain(small, cells[0], LABELS[1], method).values for running in (half, full))
    assert one.dtype == np.float32
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95 or not other.any()


def test_concurrent_explanations_equal_those_of_one_client(small, cells, runtime):
    """Quick and slow, with and without a class, from eight threads: each map is the one that a single client gets."""
    jobs = [(method, cell, label) for method in METHODS for cell in cells[:3] for label in (None, LABELS[1])]

    def ask(job):
        method, cell, label = job
        return runtime.explain(small, cell, label, method, client=Client(str(threading.get_ident()))).values

    alone = [ask(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, jobs))
    for job, one, other in zip(jobs, alone, together, strict=True):
        assert np.allclose(one, other, atol=1e-3), job[0]


def test_a_watcher_sees_progress_and_can_cancel(small, cells):
    with Runtime("cpu", "fp32", batch_size=4, watch_interval=0.002) as runtime:
        watch_slow_work(small, cells, runtime)


def watch_slow_work(small, cells, runtime: Runtime) -> None:
    shares = []
    runtime.explain(small, cells[0], method="score-cam", watch=lambda ticket: shares.append(ticket.progress))
    assert shares == sorted(shares)
    assert len(set(shares)) > 1

    def leave(ticket):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.explain(small, cells[0], method="score-cam", watch=leave)
    assert runtime.classify(small, cells[0]).label in LABELS
    assert nothing_slow(runtime)


def nothing_slow(runtime: Runtime) -> bool:
    """Whether slow work ends soon: what was stopped is dropped at its next step."""
    deadline = time.monotonic() + 10
    while runtime.status().slow and time.monotonic() < deadline:
        time.sleep(0.01)
    return runtime.status().slow == 0


def test_slow_explanations_let_others_pass_and_can_be_cancelled(small, cells, runtime):
    slow = runtime.submit(small, cells[0], ExplanationRequest(method="score-cam"), Client("slow"))
    deadline = time.monotonic() + 30
    while not 0 < slow.progress < 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert runtime.submit(small, cells[1], client=Client("quick")).result(30)
    before = slow.progress
    slow.stop()
    with pytest.raises((StoppedError, CancelledError)):
        slow.result(30)
    assert before <= 1
    assert runtime.classify(small, cells[2]).label in LABELS
    assert nothing_slow(runtime)


def test_cancels_slow_work_of_a_client_that_has_gone(small, cells, runtime):
    here = [True]
    ticket = runtime.submit(small, cells[0], ExplanationRequest(method="occlusion"), Client("mine", lambda: here[0]))
    here[0] = False
    with pytest.raises((StoppedError, CancelledError)):
        ticket.result(30)


def test_contrast_of_two_classes(small, cells, runtime):
    one = runtime.explain(small, cells[0], LABELS[0], against=LABELS[1])
    other = runtime.explain(small, cells[0], LABELS[1], against=LABELS[0])
    assert one.against == LABELS[1]
    assert not np.allclose(one.values, other.values)
    for method in ("eigen-cam", "score-cam", "occlusion"):
        with pytest.raises(ExplanationError, match="choose Grad-CAM"):
            runtime.explain(small, cells[0], LABELS[0], method, LABELS[1])


def test_another_layer_can_be_explained(small, cells, runtime):
    names = runtime.layers(small)
    assert len(names) >= 2
    found = [runtime.explain(small, cells[0], LABELS[0], layer=name).values for name in names]
    assert not np.allclose(found[0], found[-1])
    with pytest.raises(ExplanationError, match="no layer"):
        runtime.explain(small, cells[0], layer="nowhere")


def test_concepts_of_a_picture(small, cells, runtime):
    found = runtime.concepts(small, cells[0].resize((120, 80)))
    assert found.maps.shape == (4, 80, 120)
    assert found.probabilities.shape == (4, len(LABELS))


def test_nearest_training_cells(tmp_path, cells, runtime):
    folder = make_headed(tmp_path / "knn", "knn")
    entry = read_entry(folder)
    assert runtime.neighbours(entry, cells[0]) == []  # nobody wrote down which they are
    count = 120
    write_neighbours(folder, [f"{n}.png" for n in range(count)], [LABELS[n % 4] for n in range(count)])
    found = runtime.neighbours(entry, cells[0], 4)
    assert len(found) == 4
    assert found[0].label == runtime.classify(entry, cells[0]).label  # of one neighbour the nearest decides
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    write_neighbours(folder, ["a.png"], ["monocyte"])
    with pytest.raises(EntryError, match="does not fit"):
        runtime.neighbours(entry, cells[0])
    (folder / "neighbours.parquet").write_bytes(b"nothing")
    with pytest.raises(EntryError, match="train the entry again"):
        runtime.neighbours(entry, cells[0])
    assert runtime.neighbours(read_entry(make_entry(tmp_path / "net", "cnn60")), cells[0]) == []


def test_a_classical_head_is_explained_by_occlusion(tmp_path, cells, runtime):
    entry = read_entry(make_headed(tmp_path / "forest", "forest"))
    assert methods_for(entry) == ["occlusion"]
    found = runtime.explain(entry, cells[0])
    assert found.method == "occlusion"
    assert found.values.shape == (96, 96)
    for method in ("grad-cam", "score-cam"):
        with pytest.raises(ExplanationError, match="Choose Occlusion"):
            runtime.explain(entry, cells[0], method=method)
    with pytest.raises(ExplanationError, match="Choose a network"):
        runtime.concepts(entry, cells[0])


@pytest.mark.parametrize("method", METHODS)
def test_map_of_an_ensemble_is_the_mean_of_its_members(tmp_path, cells, runtime, method):
    for seed, name in enumerate(("one", "two")):
        make_entry(tmp_path / name, "test_resnet", seed, LABELS if seed else LABELS[::-1])
    ensemble(tmp_path / "both", ["one", "two"], member_weights=[0.3, 0.7])
    both = next(entry for entry in list_entries([FolderSource(tmp_path, "here")]) if entry.id == "both")
    seen = 0
    for label in LABELS[:2]:
        found = runtime.explain(both, cells[0], label, method)
        parts = [runtime.explain(member, cells[0], label, method).values for member in both.members]
        mixed = 0.3 * parts[0] + 0.7 * parts[1]
        assert np.allclose(found.values, mixed / max(mixed.max(), 1e-9), atol=1e-3)
        seen += bool(mixed.any())
    assert seen
    assert runtime.explain(both, cells[0], method=method).label == runtime.classify(both, cells[0]).label


def test_memory_does_not_grow_when_models_are_switched(tiny_zoo, cells):
    """200 times another model than before, with room for one: memory, threads and files stay as they are."""
    entries = [read_entry(tiny_zoo / f"tiny-{name}") for name in NAMES]
    process = psutil.Process()
    with Runtime("cpu", "fp32", max_bytes=1) as runtime:
        for number in range(240):
            runtime.classify(entries[number % len(entries)], cells[0])
            if number == 39:
                gc.collect()
                before = process.memory_info().rss, process.num_threads(), process.num_fds()
        gc.collect()
        after = process.memory_info().rss, process.num_threads(), process.num_fds()
        assert runtime.loaded_bytes <= max(runtime.model(entry).bytes for entry in entries)
    assert after[0] < before[0] + 60_000_000
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] + 1


def test_the_total_queue_is_bounded(small, cells):
    with Runtime("cpu", "fp32", batch_size=4, limits=QueueLimits(total=5, timeout=0.05)) as runtime:
        blocker = hold(runtime, small)
        with pytest.raises(BusyError, match="requests are waiting"):
            for number, cell in enumerate(cells):
                runtime.submit(small, cell, client=Client(f"visitor {number}"))
        blocker.set()


def test_a_full_queue_of_one_client_names_the_number_of_requests(small, cells):
    with Runtime("cpu", "fp32", batch_size=4, limits=QueueLimits(per_client=3, timeout=0.05)) as runtime:
        blocker = hold(runtime, small)
        with pytest.raises(BusyError, match="requests are waiting"):
            for cell in cells:
                runtime.submit(small, cell, client=Client("greedy"))
        # another client's queue is not full
        assert not runtime.submit(small, cells[0], client=Client("modest")).done()
        blocker.set()
