"""How is one entry's network run? Batches in, probabilities and maps out; only one thread may ever use it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import zoo.architectures  # noqa: F401 (registers our own networks with timm)
from zoo.attribution import DEFAULT, MODEL_FREE, PREDICTED, Cams, ExplanationError, explain_batch, method_of, steps
from zoo.attribution.features import Seen, layers_of, look, split_forward
from zoo.entry import (
    HEAD,
    MAX_PARAMETERS,
    NEIGHBOURS,
    OOD_STATISTICS,
    WEIGHTS,
    Config,
    Entry,
    EntryError,
    Weights,
    read_predictions,
)
from zoo.imaging.preprocess import Preprocessor, preprocessor
from zoo.serving.heads import ClassicalHeadModel, Neighbour, read_head, read_neighbours
from zoo.serving.ood import OodDetector, read_ood_detector

PRECISIONS = ("auto", "bf16", "fp32")
BF16_GAIN = 1.15  # how much faster than fp32 bf16 must be to be used
# bf16 moves a logit by about 1 %: no matter where the answer is clear, up to some hundredths where it is not.
# Answers between these bounds are computed again in fp32.
CLEAR = 0.98
# networks make some layers twice while they are built, a classical head's entry has no last layer, and backbones are
# built with a head of their own that is thrown away (VGG's has 124 million)
SPARE, SPARE_MORE, SPARE_BACKBONE = 2, 1_000_000, 150_000_000


@dataclass(frozen=True)
class ExplanationRequest:
    """What is to be explained: a label number (or PREDICTED), set against another or not, by a method at a layer."""

    target: int = PREDICTED
    method: str = DEFAULT
    against: int | None = None
    layer: str | None = None

    @property
    def quick(self) -> bool:
        """Whether whole batches of such wishes are computed at once."""
        return method_of(self.method).quick


@dataclass(frozen=True)
class Answer:
    """What was computed for one picture: probabilities (classes,), map (h, w) or None, seconds of its batch.

    `distance` from what the model knows (see `zoo.serving.ood.familiarity`); None where the entry has no gate.
    """

    probabilities: np.ndarray
    cam: np.ndarray | None
    seconds: float
    distance: float | None = None


class LoadedModel:
    """One entry's network on a device, with all that is needed to run it.

    At most `max_batch` pictures fit into memory at once.

    Raises EntryError if the entry cannot be loaded.
    """

    def __init__(self, entry: Entry, device: torch.device, precision: str = "auto") -> None:
        model = load_model(entry).to(device, memory_format=torch.channels_last)
        config = entry.config
        if config is None:
            raise EntryError(f"{entry.id} cannot be used: {entry.reason}")
        self.entry, self.device, self.model, self.max_batch = entry, device, model, 4096
        self.labels = config.label_names
        self.layer, self.temperature = config.zoo.explanation_layer, config.zoo.temperature
        self.prepare: Preprocessor = preprocessor(config.pretrained_cfg.model_dump(), config.zoo.crop)
        self.bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        self.headed = isinstance(model, ClassicalHeadModel)
        size = config.pretrained_cfg.input_size
        self.bf16 = not self.headed and (
            precision == "bf16" or (precision == "auto" and bf16_is_faster(model, device, size, unclear_share(entry)))
        )
        self.check = precision == "auto"

    @cached_property
    def ood_detector(self) -> OodDetector | None:
        """The entry's gate. Raises EntryError if it is damaged: only then, so that it can be fitted again."""
        gate = read_ood_detector(self.entry.folder, len(self.labels))
        if gate and gate.width != self._vectors(split_forward(self.model, self._blank())[0]).shape[1]:
            raise EntryError(
                f"{OOD_STATISTICS} of {self.entry.id} does not fit its model; fit it again (`training gate`)."
            )
        return gate and gate.to(self.device)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """A picture as the network's input, uint8 (3, H, W); safe in any thread."""
        return self.prepare.pixels(image)

    def run(
        self,
        pictures: Sequence[torch.Tensor],
        wishes: Sequence[ExplanationRequest | None],
        confidence: Sequence[float] | None = None,
    ) -> list[Answer]:
        """Answers to pictures (see `pixels`), with maps where a quick wish asks for one.

        `confidence` that each picture shows a cell, for the gate; None: nobody doubts it.
        """
        start = time.perf_counter()
        batch = self._batch(pictures)
        logits = torch.empty(len(pictures), len(self.labels), device=self.device)
        maps: dict[int, np.ndarray] = {}
        distances: dict[int, float] = {}
        groups: dict[tuple | None, list[int]] = {}
        for i, wish in enumerate(wishes):
            quick = wish is not None and wish.quick
            key = (wish.method, wish.layer, wish.against is None) if wish is not None and quick else None
            groups.setdefault(key, []).append(i)
        with autocast(self.device, self.bf16):
            for key, rows in groups.items():
                part = batch if len(rows) == len(batch) else batch[rows]
                if key is None:
                    features, found = split_forward(self.model, part)
                    logits[rows] = found.float()
                else:
                    cams = self.explain(part, [w for i in rows if (w := wishes[i]) is not None])
                    logits[rows], features = cams.logits, cams.features
                    maps |= zip(rows, cams.maps.cpu().numpy(), strict=True)
                if self.ood_detector is not None:
                    sure = None if confidence is None else torch.tensor([confidence[i] for i in rows])
                    distances |= zip(rows, self._distances(part, features, sure), strict=True)
        probabilities = self._settle(batch, logits)
        for i in maps:
            wish, best = wishes[i], int(probabilities[i].argmax())
            if wish is not None and wish.target == PREDICTED and best != int(logits[i].argmax()):
                # full precision changed its mind: the map must be that of the label which is shown
                again = self.explain(batch[i : i + 1], [replace(wish, target=best)])
                maps[i] = again.maps[0].cpu().numpy()
        seconds = time.perf_counter() - start
        return [Answer(row, maps.get(i), seconds, distances.get(i)) for i, row in enumerate(probabilities)]

    def explain(self, batch: torch.Tensor, wishes: Sequence[ExplanationRequest]) -> Cams:
        """Maps of a normalised batch by quick wishes of one method and layer. Raises ExplanationError."""
        first = wishes[0]
        if self.headed:
            raise ExplanationError(
                f"{self.entry.id} decides by a classical classifier, which has no gradients: "
                f"{method_of(first.method).title} cannot explain it. Choose {method_of(MODEL_FREE).title}."
            )
        targets = torch.tensor([wish.target for wish in wishes], device=self.device)
        against = None if first.against is None else torch.tensor([w.against for w in wishes], device=self.device)
        return explain_batch(self.model, batch, targets, first.method, first.layer or self.layer, against)

    def steps(self, picture: torch.Tensor, wish: ExplanationRequest) -> Generator[float, None, np.ndarray]:
        """A slow wish on one picture, step by step in full precision: yields the share done, returns the map (h, w)."""
        method = method_of(wish.method)
        if self.headed and not method.any_model:
            self.explain(picture[None], [wish])  # says why not
        if wish.against is not None:
            raise ExplanationError(f"{method.title} cannot set one class against another; choose Grad-CAM.")
        layer = wish.layer or self.layer
        found = yield from steps(self.model, self._batch([picture]), wish.target, wish.method, layer)
        return found.float().cpu().numpy()

    def embed(self, pictures: Sequence[torch.Tensor]) -> np.ndarray:
        """The vectors before the last layer (n, d) float32 of pictures (see `pixels`)."""
        with autocast(self.device, self.bf16):
            return self._vectors(split_forward(self.model, self._batch(pictures))[0]).cpu().numpy()

    def _blank(self) -> torch.Tensor:
        config = self.entry.config
        size = config.pretrained_cfg.input_size if config else (3, 8, 8)
        return torch.zeros(1, *size, device=self.device)

    def _vectors(self, features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.model.forward_head(features, pre_logits=True).float()

    def _distances(
        self, batch: torch.Tensor, features: torch.Tensor | None, confidence: torch.Tensor | None
    ) -> list[float]:
        """Of a normalised batch; `features` is what the backbone gave, None where it was not kept."""
        if self.ood_detector is None:
            return []
        if features is None:
            features = split_forward(self.model, batch)[0]
        with torch.autocast(self.device.type, enabled=False):
            confidence = None if confidence is None else confidence.to(self.device)
            return self.ood_detector.distances(self._vectors(features.float()), confidence).tolist()

    def look(self, picture: torch.Tensor, layer: str | None) -> Seen:
        """The feature map of one picture (see `pixels`), in full precision. Raises ExplanationError."""
        return look(self.model, self._batch([picture]), None, layer or self.layer)

    def nearest(self, picture: torch.Tensor, count: int) -> list[Neighbour]:
        """The training pictures nearest to one picture (see `pixels`); none where the entry does not name them.

        Raises EntryError if the entry decides by something else than its neighbours.
        """
        known = read_neighbours(self.entry.folder / NEIGHBOURS)
        if not isinstance(self.model, ClassicalHeadModel) or known is None:
            return []
        features = split_forward(self.model, self._batch([picture]))[0]
        rows, away = self.model.nearest(self._vectors(features), count)
        if rows.max(initial=0) >= len(known):
            raise EntryError(f"{NEIGHBOURS} of {self.entry.id} does not fit its classifier.")
        found = known.iloc[rows]
        return [Neighbour(*row) for row in zip(found["file"], found["label"], away.tolist(), strict=True)]

    def layers(self) -> list[str]:
        """Layers that may be explained instead of the last, from the input on; none for classical classifiers."""
        config = self.entry.config
        return [] if self.headed or config is None else layers_of(self.model, config.pretrained_cfg.input_size)

    def _batch(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        pixels = torch.stack(list(pictures)).to(self.device, non_blocking=True)
        return self.prepare.normalise(pixels).contiguous(memory_format=torch.channels_last)

    def _settle(self, batch: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
        """Probabilities (B, classes) float64; answers that bf16 leaves unclear are computed again in fp32."""
        probabilities = (logits / self.temperature).softmax(1)
        if self.bf16 and self.check:
            unclear = probabilities.amax(1) < CLEAR
            if unclear.any():
                again = split_forward(self.model, batch[unclear])[1].float()
                probabilities[unclear] = (again / self.temperature).softmax(1)
        if not torch.isfinite(probabilities).all():
            raise EntryError(f"{self.entry.id} gave no number for this picture; its weights may be damaged.")
        return probabilities.double().cpu().numpy()


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
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


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
        with _at_most(_room(config, entry.weights)):
            model = timm.create_model(
                config.architecture, pretrained=False, num_classes=config.num_classes, **config.model_args
            )
        tensors = load_file(str(entry.folder / WEIGHTS))
        if config.zoo.head:
            # what a classical head takes the place of may be missing
            left = model.state_dict()
            tensors = {key: left[key] for key in left if key.startswith("classifier.")} | tensors
        model.load_state_dict(tensors)
    except EntryError as error:
        raise EntryError(f"{entry.id} cannot be loaded: {error}") from error
    # what a network's own code makes of arguments that are not for it may be anything
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EntryError(
            f"{entry.id} cannot be loaded: its weights do not fit {config.architecture} ({reason})"
        ) from error
    if config.zoo.head:
        model = ClassicalHeadModel(model, read_head(entry.folder / HEAD, config.num_classes), config.num_classes)
    return model.eval().requires_grad_(False)


def _room(config: Config, weights: Weights) -> int:
    """How many parameters may come about while a network is built."""
    if weights.parameters is None:
        return MAX_PARAMETERS
    return SPARE * weights.parameters + (SPARE_BACKBONE if "backbone" in config.model_args else SPARE_MORE)


@contextlib.contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """No more parameters than this may come about in this thread: a network is not built to find it does not fit.

    Raises EntryError at the first parameter too many, before its memory is touched.
    """
    _building.left = parameters
    try:
        yield
    finally:
        _building.left = None


def _count_down(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
    left = getattr(_building, "left", None)
    if left is None or parameter is None:
        return
    _building.left = left - parameter.numel()
    if _building.left < 0:
        raise EntryError("its options ask for a network far larger than its weights.")


_building = threading.local()  # `left`: how many parameters may still come about; None where no network is built
register_module_parameter_registration_hook(_count_down)


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
