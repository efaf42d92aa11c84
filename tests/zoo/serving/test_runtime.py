"""The runtime: answers and maps of many clients equal those of one, and models are loaded, unloaded and refused."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import zoo
from tests.making import ARCHITECTURES, LABELS, draw_cell, make_entry
from zoo.attribution import PREDICTED, Cams, ExplanationError, explain_batch
from zoo.attribution.features import find_layer
from zoo.entry import Entry, EntryError, read_entry, read_predictions
from zoo.files import write_json
from zoo.imaging.preprocess import preprocessor
from zoo.serving.client_queues import QueueLimits
from zoo.serving.devices import bf16_is_faster, resolve_device, unclear_share
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.models.loading import load_model
from zoo.serving.requests import ExplanationRequest
from zoo.serving.runtime import BusyError, Runtime

NAMES = [name.replace("_", "-") for name in ARCHITECTURES]


@pytest.fixture(params=NAMES)
def entry(request, tiny_zoo: Path):
    return read_entry(tiny_zoo / f"tiny-{request.param}")


@pytest.fixture
def small(tiny_zoo: Path):
    return read_entry(tiny_zoo / "tiny-cnn60")


@pytest.fixture
def runtime():
    with Runtime("cpu", "fp32", batch_size=5) as running:
        yield running


def test_probabilities_are_those_of_the_bare_model(entry, runtime, cells):
    model = load_model(entry)
    prepare = preprocessor(entry.config.pretrained_cfg.model_dump())
    with torch.no_grad():
        expected = model(torch.stack([prepare(cell) for cell in cells])).softmax(1).numpy()
    for cell, row in zip(cells, expected, strict=True):
        found = runtime.classify(entry, cell)
        assert list(found.probabilities) == LABELS
        assert np.allclose(list(found.probabilities.values()), row, atol=1e-5)
        assert found.label == LABELS[row.argmax()]
        assert found.confidence == max(found.probabilities.values())
        assert found.seconds > 0


def test_temperature_lowers_confidence(tiny_zoo, tmp_path, runtime, cells):
    sharp = read_entry(make_entry(tmp_path / "sharp", "cnn60"))
    soft = read_entry(make_entry(tmp_path / "soft", "cnn60", temperature=3.0))
    assert runtime.classify(soft, cells[0]).confidence < runtime.classify(sharp, cells[0]).confidence


def test_eight_threads_get_the_answers_of_one(entry, cells):
    """Classifying and explaining different pictures at once, tolerance 1e-3 in fp32."""
    jobs = [(number % 3, cell) for number, cell in enumerate(cells * 4)]

    def ask(running: Runtime, job: tuple[int, Image.Image]):
        kind, cell = job
        if kind == 0:
            return list(running.classify(entry, cell).probabilities.values()), None
        found = running.explain(entry, cell, None if kind == 1 else LABELS[2])
        return list(found.prediction.probabilities.values()), found.values

    with Runtime("cpu", "fp32", batch_size=1) as alone:
        expected = [ask(alone, job) for job in jobs]
    with Runtime("cpu", "fp32", batch_size=8) as busy, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: ask(busy, job), jobs))
    for (shares, values), (true_shares, true_values) in zip(found, expected, strict=True):
        assert np.allclose(shares, true_shares, atol=1e-3)
        if values is not None:
            assert np.allclose(values, true_values, atol=1e-3)


def test_requests_of_several_clients_share_batches(small, cells):
    sizes = []
    with Runtime("cpu", "fp32", batch_size=8) as runtime, ThreadPoolExecutor(8) as pool:
        network = runtime.model(small).model
        network.features.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
        futures = list(pool.map(lambda cell: runtime.submit(small, cell), cells * 4))
        assert all(future.result() for future in futures)
    assert sum(sizes) == 4 * len(cells)
    assert max(sizes) > 1


def test_a_map_lies_on_the_picture(entry, runtime, cells):
    for size in ((96, 96), (200, 90)):
        picture = cells[0].resize(size)
        found = runtime.explain(entry, picture)
        assert found.values.shape == (size[1], size[0])
        assert found.values.dtype == np.float32
        assert found.values.min() >= 0
        assert found.values.max() <= 1


def test_maps_differ_between_classes_and_pictures(entry, runtime, cells):
    one = runtime.explain(entry, cells[0], LABELS[0])
    other_class = runtime.explain(entry, cells[0], LABELS[1])
    other_picture = runtime.explain(entry, cells[1], LABELS[0])
    assert one.prediction.probabilities == pytest.approx(other_class.prediction.probabilities, abs=1e-5)
    assert not np.allclose(one.values, other_class.values)
    assert not np.allclose(one.values, other_picture.values)


LAST = {  # the module whose output `forward_features` returns, or the token layer
    "cnn60": "features",
    "test_resnet": "layer4",
    "test_efficientnet": "bn2",
    "test_convnext": "norm_pre",
    "test_vit": "blocks.-1.norm1",
}


@pytest.mark.parametrize("label", range(4))
def test_maps_agree_with_pytorch_grad_cam(entry, cells, label):
    model, library = load_model(entry), load_model(entry).requires_grad_(True)
    prepare = preprocessor(entry.config.pretrained_cfg.model_dump())
    batch = torch.stack([prepare(cell) for cell in cells])

    def reshape(tokens):
        return tokens[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, model.patch_embed.grid_size)

    layer = find_layer(library, LAST[entry.config.architecture])
    with GradCAM(library, [layer], reshape_transform=reshape if hasattr(model, "patch_embed") else None) as cam:
        theirs = cam(batch, [ClassifierOutputTarget(label)] * len(cells))
    ours = explain_batch(model, batch, torch.full((len(cells),), label)).maps.numpy()
    for mine, other in zip(ours, theirs, strict=True):
        large = np.asarray(Image.fromarray(mine).resize(other.shape[::-1], Image.Resampling.BILINEAR))
        # a class nothing speaks for has an empty map in both
        assert (large.std() > 1e-6) == (other.std() > 1e-6)
        if large.std() > 1e-6:
            assert np.corrcoef(large.ravel(), other.ravel())[0, 1] > 0.99


def test_predicted_classes_have_maps(entry, runtime, cells):
    assert any(runtime.explain(entry, cell).values.any() for cell in cells)


def test_leaves_no_hook_and_no_gradient(entry, cells):
    model = load_model(entry)
    prepare = preprocessor(entry.config.pretrained_cfg.model_dump())
    batch = prepare(cells[0])[None]
    explain_batch(model, batch, torch.tensor([PREDICTED]))
    with pytest.raises((RuntimeError, IndexError)):
        explain_batch(model, batch, torch.tensor([99]))
    assert all(not module._forward_hooks and not module._backward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_entry_can_name_the_layer_to_explain(tiny_zoo, tmp_path, runtime, cells):
    early = read_entry(make_entry(tmp_path / "early", "cnn60", explanation_layer="features.4"))
    assert runtime.explain(early, cells[0]).values.any()
    wrong = read_entry(make_entry(tmp_path / "wrong", "cnn60", explanation_layer="nowhere.3"))
    with pytest.raises(ExplanationError, match=r"no layer nowhere.3"):
        runtime.explain(wrong, cells[0])
    flat = read_entry(make_entry(tmp_path / "flat", "cnn60", explanation_layer="hidden"))
    with pytest.raises(ExplanationError, match="no feature map"):
        runtime.explain(flat, cells[0])


def test_refuses_an_unknown_class(small, runtime, cells):
    with pytest.raises(EntryError, match=r"no class 'unicorn'.*eosinophil"):
        runtime.explain(small, cells[0], "unicorn")


def hold(runtime: Runtime, entry: Entry) -> threading.Event:
    """Keep the engine from answering until the event is set, 30 seconds at most."""
    blocker = threading.Event()
    model = runtime.model(entry)
    real = model.run
    model.run = lambda *asked: (blocker.wait(30), real(*asked))[1]
    return blocker


def test_a_failing_request_does_not_affect_others(small, cells):
    with Runtime("cpu", "fp32", batch_size=8) as runtime:
        blocker = hold(runtime, small)
        good = [runtime.submit(small, cell) for cell in cells[:3]]
        bad = runtime.submit(small, cells[0], ExplanationRequest(99))
        more = [runtime.submit(small, cell) for cell in cells[:3]]
        blocker.set()
        assert all(future.result(30) for future in good + more)
        with pytest.raises((RuntimeError, IndexError)):
            bad.result(30)


def test_a_cancelled_request_does_not_affect_others(small, cells):
    with Runtime("cpu", "fp32", batch_size=1) as runtime:
        blocker = hold(runtime, small)
        futures = [runtime.submit(small, cell) for cell in cells[:4]]
        assert futures[2].cancel()
        blocker.set()
        assert futures[3].result(30)


always_bf16 = partial(LoadedModel, is_faster=lambda *_: True)


def test_the_map_is_that_of_the_label_shown(tiny_zoo, cells, monkeypatch):
    """If full precision changes the answer of bf16, the map follows."""
    entry = read_entry(tiny_zoo / "tiny-test-resnet")
    with Runtime("cpu", "auto", loader=always_bf16) as fast, Runtime("cpu", "fp32") as exact:
        model = fast.model(entry)
        real = model.explain

        def wrong_first(batch, explanations):
            found = real(batch, explanations)
            return Cams(-found.logits, found.maps * 0 + 1) if explanations[0].target == PREDICTED else found

        monkeypatch.setattr(model, "explain", wrong_first)
        for cell in cells[:6]:
            one, other = fast.explain(entry, cell), exact.explain(entry, cell)
            assert one.label == other.label
            assert np.allclose(one.values, other.values, atol=0.1)


def test_a_full_queue_gives_an_error_message(small, cells):
    with Runtime("cpu", "fp32", batch_size=1, limits=QueueLimits(per_client=2, timeout=0.1)) as runtime:
        blocker = hold(runtime, small)
        futures = []
        with pytest.raises(BusyError, match="2 requests are waiting"):
            futures += [runtime.submit(small, cell) for cell in cells[:1]]
            futures += [runtime.submit(small, cell) for cell in cells[:9]]
        assert runtime.waiting() == 2
        blocker.set()
        assert all(future.result(30) for future in futures)


def test_unloads_models_beyond_the_memory_limit(tiny_zoo, cells):
    entries = [read_entry(tiny_zoo / f"tiny-{name}") for name in NAMES[:3]]
    with Runtime("cpu", "fp32", max_bytes=1) as runtime:
        gone = weakref.ref(runtime.model(entries[0]).model)
        pending = [runtime.submit(entries[0], cell) for cell in cells]
        for entry in entries[1:]:
            runtime.classify(entry, cells[0])
        # what was queued is answered all the same
        assert all(future.result(30) for future in pending)
        del pending
        gc.collect()
        assert gone() is None
        assert runtime.classify(entries[0], cells[0]).label in LABELS


def test_concurrent_requests_load_a_model_once(small):
    loaded = []

    def counted(entry, device, precision):
        loaded.append(entry.id)
        return LoadedModel(entry, device, precision)

    with Runtime("cpu", "fp32", loader=counted) as runtime, ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: runtime.model(small), range(8)))
    assert loaded == ["tiny-cnn60"]
    assert len({id(model) for model in models}) == 1


def test_loading_is_retried_after_a_failure(small):
    tried = []

    def fails_once(entry, device, precision):
        tried.append(entry.id)
        if len(tried) == 1:
            raise EntryError("not now.")
        return LoadedModel(entry, device, precision)

    with Runtime("cpu", "fp32", loader=fails_once) as runtime:
        with pytest.raises(EntryError, match="not now"):
            runtime.model(small)
        assert runtime.model(small).labels == LABELS


def test_an_entry_trained_again_is_loaded_again(tmp_path, cells):
    folder = make_entry(tmp_path / "one", "cnn60", seed=1)
    with Runtime("cpu", "fp32") as runtime:
        before = runtime.classify(read_entry(folder), cells[0])
        make_entry(tmp_path / "two", "cnn60", seed=2)
        (tmp_path / "two" / "model.safetensors").replace(folder / "model.safetensors")
        after = runtime.classify(read_entry(folder), cells[0])
    assert before.probabilities != after.probabilities


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "no_such_net"}, "not known here"),
        ({"architecture": "test_resnet"}, "do not fit"),
        ({"model_args": {"nonsense": 3}}, "do not fit"),
    ],
    ids=["unknown", "other", "option"],
)
def test_refuses_weights_that_do_not_fit(tmp_path, change, said):
    entry = read_entry(make_entry(tmp_path / "odd", "cnn60"))
    changed = entry.config.model_copy(update=change)
    with pytest.raises(EntryError, match=said):
        load_model(type(entry)(entry.id, entry.folder, changed, entry.evaluation, entry.weights))


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("tpu", "mps", "meta", "cuda:77", "nonsense:1"):
        with pytest.raises(EntryError, match=r"Use (auto|--device)"):
            resolve_device(name)


def test_unclear_half_precision_answers_are_recomputed(tiny_zoo, cells):
    """With bf16 on, answers stay within 1e-2 of fp32, since unclear ones are computed again."""
    entry = read_entry(tiny_zoo / "tiny-test-resnet")
    with Runtime("cpu", "auto", loader=always_bf16) as fast, Runtime("cpu", "fp32") as exact:
        assert fast.model(entry).bf16
        for cell in cells:
            one, other = fast.classify(entry, cell), exact.classify(entry, cell)
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-2)


def test_bf16_is_not_used_where_all_answers_are_recomputed(small):
    assert not bf16_is_faster(load_model(small), torch.device("cpu"), (3, 60, 60), 1.0)
    table = read_predictions(small, "drawn-test")
    assert unclear_share(small) == (table[LABELS].max(axis=1) < 0.98).mean() > 0


def test_a_closed_runtime_refuses_requests(small, cells):
    runtime = Runtime("cpu", "fp32")
    runtime.close()
    with pytest.raises(BusyError, match="being closed"):
        runtime.submit(small, cells[0])


def test_module_functions_answer_as_the_runtime(zoo_environment, cells, tmp_path):
    cells[0].save(tmp_path / "cell.png")
    name = "tiny-test-efficientnet"
    forms = [cells[0], tmp_path / "cell.png", str(tmp_path / "cell.png"), (tmp_path / "cell.png").read_bytes()]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda form: zoo.classify(form, name), forms))
    expected = zoo.default_runtime().classify(zoo.get_entry(name), cells[0])
    assert all(one.probabilities == pytest.approx(expected.probabilities, abs=1e-5) for one in found)
    assert zoo.explain(cells[0], name).values.shape == (96, 96)


@pytest.mark.parametrize("shape", [(48, 48), (32, 48)])
def test_views_of_a_picture_are_averaged(tmp_path, shape):
    """The answer is the mean over turned and mirrored pictures; the explanation is of that answer."""
    folder = make_entry(tmp_path / "viewed", "test_resnet", 3)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, *shape], "crop_mode": "squash", "crop_pct": 1.0}
    write_json(folder / "config.json", config)
    entry, cell = read_entry(folder), draw_cell("neutrophil", 4, (shape[1], shape[0]))
    seen = [cell, cell.transpose(Image.Transpose.ROTATE_180)]
    if shape[0] == shape[1]:
        seen += [one.transpose(Image.Transpose.ROTATE_90) for one in seen]
    else:
        seen += [cell.transpose(Image.Transpose.FLIP_LEFT_RIGHT), cell.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    with Runtime("cpu", "fp32") as runtime:
        alone = [runtime.classify(entry, view).probabilities for view in seen]
        found = runtime.classify(entry.with_views(4), cell)
        for label in LABELS:
            assert found.probabilities[label] == pytest.approx(np.mean([one[label] for one in alone]), abs=1e-3)
        explained = runtime.explain(entry.with_views(4), cell)
        assert explained.prediction.probabilities == pytest.approx(found.probabilities, abs=1e-5)
        assert explained.label == found.label
        assert np.allclose(explained.values, runtime.explain(entry, cell, found.label).values, atol=1e-5)
        assert runtime.classify(entry.with_views(8), cell).confidence > 0
