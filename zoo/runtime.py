"""How are models run when many people ask at once? Each loaded model belongs to one worker thread with a bounded queue.

Requests of all callers meet in that queue and are run as batches; nothing else ever touches the model, so that
predictions and explanations cannot disturb each other.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from zoo.entry import HEAD, WEIGHTS, Entry, EntryError, read_predictions
from zoo.explain import PREDICTED, Cams, ExplanationError, explain_batch
from zoo.explain.features import split_forward
from zoo.heads import Headed, read_head
from zoo.preprocess import Preprocessor, place_map, preprocessor, region_of

PRECISIONS = ("auto", "bf16", "fp32")
BATCH_SIZE = 32
QUEUE_SIZE = 128
MAX_MODEL_BYTES = 4_000_000_000
PATIENCE = 60.0  # seconds a request waits for a place in a full queue
BF16_GAIN = 1.15  # how much faster than fp32 bf16 must be to be used
# bf16 moves a logit by about 1 %: no matter where the answer is clear, up to some hundredths where it is not.
# Answers between these bounds are computed again in fp32.
CLEAR = 0.98


class BusyError(RuntimeError):
    """The queue stayed full; the message says what to do."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture: label, its probability, one probability a label, and the seconds its batch took."""

    label: str
    confidence: float
    probabilities: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """Grad-CAM of one picture for `label`: `values` is H×W float32 in 0..1 at the picture's own resolution.

    Each map is divided by its own maximum: strengths of two maps cannot be compared.
    """

    prediction: Prediction
    label: str
    values: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What the worker computed for one request: probabilities (classes,), map (h, w) or None, seconds of its batch."""

    probabilities: np.ndarray
    cam: np.ndarray | None
    seconds: float


@dataclass
class _Request:
    pixels: torch.Tensor
    explain: bool
    target: int | None
    future: Future[Answer]


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; auto is the GPU where there is one. Raises EntryError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EntryError(f"There is no device {name!r}. Use auto, cpu or cuda.") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise EntryError(f"There is no device {name} here. Use --device cpu, or auto.")
    if device.type not in ("cpu", "cuda"):
        raise EntryError(f"The device {name} is not supported. Use auto, cpu or cuda.")
    return device


def device_name(device: torch.device) -> str:
    """The device for people: the GPU's name, or CPU with its number of threads."""
    if device.type == "cuda":
        return f"GPU ({torch.cuda.get_device_name(device)})"
    return f"CPU ({torch.get_num_threads()} threads)"


def load_model(entry: Entry) -> nn.Module:
    """The entry's network in evaluation mode, float32, on the CPU, needing no gradients.

    Raises EntryError if the architecture is unknown here or the weights do not fit it.
    """
    config = entry.config
    if config is None or entry.weights is None:
        raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
    if config.zoo.members:
        raise EntryError(f"{entry.id} is an ensemble: its members are loaded, each for itself.")
    if not timm.is_model(config.architecture.split(".")[0]):
        raise EntryError(f"{entry.id} needs the architecture {config.architecture}, which is not known here.")
    try:
        model = timm.create_model(
            config.architecture, pretrained=False, num_classes=config.num_classes, **config.model_args
        )
        tensors = load_file(str(entry.folder / WEIGHTS))
        if config.zoo.head:
            # what a classical head takes the place of may be missing
            left = model.state_dict()
            tensors = {key: left[key] for key in left if key.startswith("classifier.")} | tensors
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, AttributeError, OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EntryError(
            f"{entry.id} cannot be loaded: its weights do not fit {config.architecture} ({reason})"
        ) from error
    if config.zoo.head:
        model = Headed(model, read_head(entry.folder / HEAD, config.num_classes), config.num_classes)
    return model.eval().requires_grad_(False)


class Worker:
    """One loaded model, and the only thread that touches it."""

    def __init__(
        self, entry: Entry, device: torch.device, precision: str = "auto", batch_size: int = BATCH_SIZE
    ) -> None:
        model = load_model(entry).to(device, memory_format=torch.channels_last)
        config = entry.config
        if config is None:
            raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
        self.entry, self.device, self.batch_size = entry, device, batch_size
        self.labels = config.label_names
        self.layer, self.temperature = config.zoo.explanation_layer, config.zoo.temperature
        self.prepare: Preprocessor = preprocessor(config.pretrained_cfg.model_dump(), config.zoo.crop)
        self.bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.queue: queue.Queue[_Request | None] = queue.Queue(QUEUE_SIZE)
        self.closed = False
        size = config.pretrained_cfg.input_size
        self.headed = isinstance(model, Headed)
        self.bf16 = not self.headed and (
            precision == "bf16" or (precision == "auto" and bf16_is_faster(model, device, size, unclear_share(entry)))
        )
        self.check = precision == "auto"
        self._model = model
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name=f"model {entry.id}", daemon=True)
        self._thread.start()

    def submit(self, image: Image.Image, explain: bool = False, target: int | None = None) -> Future[Answer]:
        """Queue an RGB picture; the future gives its Answer. Raises BusyError if the queue stays full."""
        request = _Request(self.prepare.pixels(image), explain, target, Future())
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._lock:
                if self.closed:
                    raise BusyError(f"{self.entry.id} was just put away for another model. Try again.")
                with contextlib.suppress(queue.Full):
                    self.queue.put_nowait(request)
                    return request.future
            if time.monotonic() > deadline:
                raise BusyError(f"{self.queue.qsize()} requests are waiting for this model. Try again in a minute.")
            time.sleep(0.005)

    def close(self) -> None:
        """End the thread and release the model once everything queued so far is answered."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self.queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _serve(self) -> None:
        ending = False
        while not ending:
            requests = [self.queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(requests) < self.batch_size:
                    requests.append(self.queue.get_nowait())
            ending = None in requests
            # a caller may have given up while its request was waiting
            self._answer([r for r in requests if r is not None and r.future.set_running_or_notify_cancel()])
        del self._model
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _answer(self, requests: list[_Request]) -> None:
        if not requests:
            return
        try:
            answers = self._run(requests)
        except Exception as error:  # a bad request or a full memory must not end the thread that serves everybody
            if len(requests) == 1:
                requests[0].future.set_exception(error)
            else:
                for request in requests:
                    self._answer([request])
            return
        for request, answer in zip(requests, answers, strict=True):
            request.future.set_result(answer)

    def _run(self, requests: list[_Request]) -> list[Answer]:
        start = time.perf_counter()
        pixels = torch.stack([request.pixels for request in requests]).to(self.device, non_blocking=True)
        batch = self.prepare.normalise(pixels).contiguous(memory_format=torch.channels_last)
        explained = [i for i, request in enumerate(requests) if request.explain]
        plain = [i for i, request in enumerate(requests) if not request.explain]
        logits = torch.empty(len(requests), len(self.labels), device=self.device)
        maps: dict[int, np.ndarray] = {}
        targets = [PREDICTED if request.target is None else request.target for request in requests]
        with autocast(self.device, self.bf16):
            if plain:
                logits[plain] = split_forward(self._model, batch[plain])[1].float()
            if explained:
                found = self._explain(batch[explained], [targets[i] for i in explained])
                logits[explained] = found.logits
                maps = dict(zip(explained, found.maps.cpu().numpy(), strict=True))
        probabilities = self._settle(batch, logits)
        for i in explained:
            best = int(probabilities[i].argmax())
            if targets[i] == PREDICTED and best != int(logits[i].argmax()):
                # full precision changed its mind: the map must be that of the label which is shown
                maps[i] = self._explain(batch[i : i + 1], [best]).maps[0].cpu().numpy()
        seconds = time.perf_counter() - start
        return [Answer(row, maps.get(i), seconds) for i, row in enumerate(probabilities)]

    def _explain(self, batch: torch.Tensor, targets: list[int]) -> Cams:
        if self.headed:
            raise ExplanationError(
                f"{self.entry.id} decides by a classical classifier, which has no gradients: Grad-CAM cannot "
                "explain it. Look at the network that gives its features instead."
            )
        return explain_batch(self._model, batch, torch.tensor(targets, device=self.device), layer=self.layer)

    def _settle(self, batch: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
        """Probabilities (B, classes) float64; answers that bf16 leaves unclear are computed again in fp32."""
        probabilities = (logits / self.temperature).softmax(1)
        if self.bf16 and self.check:
            unclear = probabilities.amax(1) < CLEAR
            if unclear.any():
                again = split_forward(self._model, batch[unclear])[1].float()
                probabilities[unclear] = (again / self.temperature).softmax(1)
        if not torch.isfinite(probabilities).all():
            raise EntryError(f"{self.entry.id} gave no number for this picture; its weights may be damaged.")
        return probabilities.double().cpu().numpy()


class Runtime:
    """Loaded models, least recently used first out, bounded by bytes. Safe to share between threads."""

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = BATCH_SIZE,
        max_bytes: int = MAX_MODEL_BYTES,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.device = resolve_device(device)
        self.precision, self.batch_size, self.max_bytes = precision, batch_size, max_bytes
        self._workers: OrderedDict[tuple[str, int], Future[Worker]] = OrderedDict()
        self._lock = threading.Lock()

    def worker(self, entry: Entry) -> Worker:
        """The entry's worker, loading its model if need be. Raises EntryError if it cannot be loaded.

        Callers of one entry wait for one loading; callers of others are not held up by it.
        """
        # the time of change is part of the key: an entry trained again is loaded again
        key = (str(entry.folder.resolve()), _changed(entry.folder / WEIGHTS))
        with self._lock:
            place = self._workers.get(key)
            if found := place is not None:
                self._workers.move_to_end(key)
            else:
                place = self._workers[key] = Future()
        if found:
            return place.result()
        try:
            place.set_result(Worker(entry, self.device, self.precision, self.batch_size))
        except BaseException as error:
            with self._lock:
                self._workers.pop(key, None)
            place.set_exception(error)
            raise
        self._make_room()
        return place.result()

    def load(self, entry: Entry) -> None:
        """Load the entry's model, or an ensemble's members, if need be. Raises as `worker`."""
        for single in entry.members or (entry,):
            self.worker(single)

    def _make_room(self) -> None:
        with self._lock:
            loaded = {key: place.result() for key, place in self._workers.items() if _is_loaded(place)}
            total = sum(worker.bytes for worker in loaded.values())
            # the last one is in use
            for key, worker in list(loaded.items())[:-1]:
                if total <= self.max_bytes:
                    break
                del self._workers[key]
                worker.close()
                total -= worker.bytes

    def submit(self, entry: Entry, image: Image.Image) -> Future[Answer]:
        """Queue a picture for classification; see `Worker.submit`.

        An ensemble's members are asked each in its own queue, so that their batches are shared with everybody who asks
        them directly.
        """
        if entry.members:
            futures = [self._retry(member, lambda worker: worker.submit(image)) for member in entry.members]
            return _together(entry, futures)
        return self._retry(entry, lambda worker: worker.submit(image))

    def prediction(self, entry: Entry, answer: Answer) -> Prediction:
        """An Answer in words."""
        labels = entry.labels
        best = int(answer.probabilities.argmax())
        shares = {label: float(p) for label, p in zip(labels, answer.probabilities, strict=True)}
        return Prediction(labels[best], shares[labels[best]], shares, answer.seconds)

    def classify(self, entry: Entry, image: Image.Image) -> Prediction:
        """Classify one RGB picture. Raises EntryError (model unusable) or BusyError (queue full)."""
        return self.prediction(entry, self.submit(entry, image).result())

    def explain(self, entry: Entry, image: Image.Image, label: str | None = None) -> Explanation:
        """Grad-CAM of an RGB picture for `label`, None standing for the predicted one.

        Raises EntryError (model unusable, or no such label), ExplanationError (no feature map) or BusyError.
        """
        if label is not None and label not in entry.labels:
            raise EntryError(f"{entry.id} has no class {label!r}. Its classes: {', '.join(entry.labels)}.")
        if entry.members:
            return self._explain_together(entry, image, label)
        target = None if label is None else entry.labels.index(label)
        answer = self._retry(entry, lambda worker: worker.submit(image, True, target)).result()
        prediction = self.prediction(entry, answer)
        if entry.config is None or answer.cam is None:
            raise EntryError(f"{entry.id} gave no map.")
        region = region_of(image, entry.config.pretrained_cfg.model_dump(), entry.config.zoo.crop)
        top = float(answer.cam.max())
        scaled = answer.cam / top if top > 0 else answer.cam
        values = place_map(scaled, image.size, region).clip(0, 1)
        return Explanation(prediction, label or prediction.label, values)

    def _explain_together(self, entry: Entry, image: Image.Image, label: str | None) -> Explanation:
        """The members' maps for one label, averaged with the ensemble's weights."""
        prediction = self.classify(entry, image)
        label = label or prediction.label
        maps = [self.explain(member, image, label).values for member in entry.members]
        values = sum((share * found for share, found in zip(entry.shares, maps, strict=True)), np.zeros_like(maps[0]))
        top = float(values.max())
        return Explanation(prediction, label, values / top if top > 0 else values)

    def waiting(self, entry: Entry) -> int:
        """How many requests are queued for the entry's model now, or for the busiest of an ensemble's."""
        if entry.members:
            return max(map(self.waiting, entry.members))
        with self._lock:
            loaded = [place.result() for place in self._workers.values() if _is_loaded(place)]
        return sum(worker.queue.qsize() for worker in loaded if worker.entry.folder == entry.folder)

    def close(self) -> None:
        """End all workers, after what they have queued."""
        with self._lock:
            workers = [place.result() for place in self._workers.values() if _is_loaded(place)]
            self._workers.clear()
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.join()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _retry(self, entry: Entry, submit: Callable[[Worker], Future[Answer]]) -> Future[Answer]:
        worker = self.worker(entry)
        try:
            return submit(worker)
        except BusyError:
            # put away for another model between the two lines above: load it again, once
            if not worker.closed:
                raise
            return submit(self.worker(entry))


def _together(entry: Entry, futures: list[Future[Answer]]) -> Future[Answer]:
    """One answer of an ensemble's members' answers: the weighted mean of their probabilities, joined by label."""
    joined: Future[Answer] = Future()
    joined.set_running_or_notify_cancel()
    left = threading.Semaphore(len(futures) - 1)

    def arrived(_: Future[Answer]) -> None:
        if left.acquire(blocking=False):
            return  # others are still to come
        try:
            answers = [future.result() for future in futures]
            places = [[member.labels.index(label) for label in entry.labels] for member in entry.members]
            parts = [answer.probabilities[place] for answer, place in zip(answers, places, strict=True)]
            mean = np.average(parts, axis=0, weights=entry.shares)
            joined.set_result(Answer(mean, None, max(answer.seconds for answer in answers)))
        except BaseException as error:
            joined.set_exception(error)

    for future in futures:
        future.add_done_callback(arrived)
    return joined


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager:
    """bf16 autocast on `device`, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def unclear_share(entry: Entry) -> float:
    """Share of the entry's stored predictions that bf16 would have to compute again; 0 where it keeps none."""
    for name in entry.evaluation.benchmarks:
        with contextlib.suppress(EntryError):
            table = read_predictions(entry, name)
            return float((table[entry.evaluation.benchmarks[name].labels].max(axis=1) < CLEAR).mean())
    return 0.0


def bf16_is_faster(model: nn.Module, device: torch.device, size: tuple[int, int, int], again: float) -> bool:
    """Whether pictures of `size` (3, H, W) run at least BF16_GAIN times faster in bf16, measured in under a second.

    `again` is the share of pictures whose answer then has to be computed in fp32 as well.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return False
    batch = torch.zeros(8, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = {False: float("inf"), True: float("inf")}
    with torch.no_grad():
        for turn in range(4):
            for bf16 in (False, True):
                start = time.perf_counter()
                with autocast(device, bf16):
                    model(batch)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                # the first turn warms up
                times[bf16] = min(times[bf16], time.perf_counter() - start) if turn else float("inf")
    return (times[True] + again * times[False]) * BF16_GAIN < times[False]


def _is_loaded(place: Future[Worker]) -> bool:
    return place.done() and place.exception() is None


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise EntryError(f"{path} cannot be read: {error.strerror}.") from error
