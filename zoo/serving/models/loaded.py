"""One entry's network on a device: batches in, probabilities and maps out. Only one thread may ever run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.attribution import MODEL_FREE, PREDICTED, Cams, ExplanationError, explain_batch, method_of, steps
from zoo.attribution.features import FeatureMap, capture, layers_of
from zoo.entry import NEIGHBOURS, OOD_STATISTICS, Entry, EntryError
from zoo.imaging.preprocess import Preprocessor, preprocessor
from zoo.lazy import lazy_module
from zoo.serving.backends.base import Arrays
from zoo.serving.backends.choose import serve
from zoo.serving.devices import CLEAR_PROBABILITY, TorchSpeed, autocast, bf16_is_faster, unclear_share
from zoo.serving.heads import Neighbour, read_neighbours
from zoo.serving.ood import OodDetector, read_ood_detector
from zoo.serving.requests import Answer, ExplanationRequest

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy_module("torch")

MAX_BATCH = 4096  # pictures; halved by the engine where they do not fit into memory


@dataclass
class _Batch:
    """A batch while torch runs it: logits (B, classes), and maps and distances by the picture's number in it."""

    logits: torch.Tensor
    maps: dict[int, np.ndarray] = field(default_factory=dict)
    distances: dict[int, float | None] = field(default_factory=dict)


class LoadedModel:
    """One entry's network on a device, with all that is needed to run it.

    Attributes:
        network: the network behind its backend.
        prepare: conversion of pictures into its input.
        bf16: whether it runs in bf16.
        max_batch: pictures that fit into memory at once.
    """

    def __init__(
        self,
        entry: Entry,
        device: torch.device | str,
        precision: str = "auto",
        is_faster: Callable[[nn.Module, torch.device, tuple[int, int, int], float], bool] = bf16_is_faster,
        backend: str = "torch",
    ) -> None:
        """Load the network.

        Args:
            entry: a readable entry that is no ensemble.
            device: where to run it.
            precision: one of PRECISIONS; auto measures.
            is_faster: the measurement, as `bf16_is_faster`.
            backend: one of BACKENDS; auto measures.

        Raises:
            EntryError: the entry cannot be loaded.
        """
        config = entry.config
        self.entry, self.device_name, self.max_batch = entry, str(device), MAX_BATCH
        self.labels = config.label_names
        self.layer, self.temperature = config.zoo.explanation_layer, config.zoo.temperature
        self.prepare: Preprocessor = preprocessor(config.pretrained_cfg.model_dump(), config.zoo.crop)
        self.input_size = config.pretrained_cfg.input_size
        self.has_classical_head = bool(config.zoo.head)

        def choose_bf16(model: nn.Module) -> bool:
            return not self.has_classical_head and (
                precision == "bf16"
                or (precision == "auto" and is_faster(model, self.device, self.input_size, unclear_share(entry)))
            )

        speed = TorchSpeed(self.device_name, choose_bf16, lambda: unclear_share(entry))
        self.network = serve(entry, self.device_name, precision, backend, speed.seconds)
        self.bf16 = self.network.backend == "torch" and speed.bf16(self.network.module)
        self._recompute_unclear = precision == "auto"

    @property
    def device(self) -> torch.device:
        """The device on which torch runs the network."""
        return torch.device(self.device_name)

    @property
    def model(self) -> nn.Module:
        """The network in torch, built on the first call where a faster backend runs it. Raises EntryError."""
        return self.network.module

    @property
    def bytes(self) -> int:
        """Memory for the weights."""
        return self.network.bytes

    @cached_property
    def ood_detector(self) -> OodDetector | None:
        """The entry's out-of-distribution detector, read when first used, so that a damaged one can be fitted again.

        Raises:
            EntryError: its file is damaged or does not fit the network.
        """
        detector = read_ood_detector(self.entry.folder, len(self.labels))
        if detector is None:
            return None
        if detector.width != self.embed([np.zeros(self.input_size, np.uint8)]).shape[1]:
            raise EntryError(
                f"{OOD_STATISTICS} of {self.entry.id} does not fit its model; fit it again (`training gate`)."
            )
        return detector

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Prepare a picture: uint8 (3, H, W); safe in any thread."""
        return self.prepare.pixels(image)

    def run(
        self,
        pictures: Sequence[np.ndarray],
        explanations: Sequence[ExplanationRequest | None],
        confidence: Sequence[float] | None = None,
    ) -> list[Answer]:
        """Classify pictures, and explain them where a quick map is asked for.

        Args:
            pictures: uint8 (3, H, W) each, as `pixels` gives them.
            explanations: the map wanted of each; slow ones are ignored here.
            confidence: 0..1 that each picture shows a cell, for the out-of-distribution check; None: not in doubt.

        Raises:
            ExplanationError: a map cannot be computed.
            EntryError: the network gives no number.
        """
        start = time.perf_counter()
        sure = None if confidence is None else np.array(confidence, np.float32)
        found = None if any(e is not None and e.quick for e in explanations) else self._run_arrays(pictures)
        if found is not None:
            probabilities = self._checked(softmax(found.logits / self.temperature))
            distances = self._distances(found.vectors, sure)
            seconds = time.perf_counter() - start
            return [
                Answer(row, None, seconds, distance, self.network.backend)
                for row, distance in zip(probabilities, distances, strict=True)
            ]
        return self._run_in_torch(pictures, explanations, sure, start)

    def _run_in_torch(
        self,
        pictures: Sequence[np.ndarray],
        explanations: Sequence[ExplanationRequest | None],
        confidence: np.ndarray | None,
        start: float,
    ) -> list[Answer]:
        """Do the same where torch runs the network, or computes maps from a backend's features."""
        pixels = self._batch(pictures)
        batch = _Batch(torch.empty(len(pictures), len(self.labels), device=self.device))
        with autocast(self.device, self.bf16):
            for rows in _same_work(explanations):
                requests = [e for row in rows if (e := explanations[row]) is not None and e.quick]
                sure = None if confidence is None else confidence[rows]
                self._run_rows(batch, pixels if len(rows) == len(pixels) else pixels[rows], rows, requests, sure)
        probabilities = self._settle(pixels, batch.logits)
        self._follow_changed_labels(batch, pixels, explanations, probabilities)
        seconds = time.perf_counter() - start
        return [
            Answer(row, batch.maps.get(i), seconds, batch.distances.get(i), self.network.backend)
            for i, row in enumerate(probabilities)
        ]

    def _run_rows(
        self,
        batch: _Batch,
        pixels: torch.Tensor,
        rows: list[int],
        explanations: Sequence[ExplanationRequest],
        confidence: np.ndarray | None,
    ) -> None:
        """Fill in the results of some rows of a batch, which are explained by one method or not at all."""
        wanted, vectors = self.ood_detector is not None, None
        if explanations:
            cams = self.explain(pixels, explanations)
            batch.logits[rows] = cams.logits
            batch.maps |= zip(rows, cams.maps.cpu().numpy(), strict=True)
            if wanted:
                vectors = self._embed(pixels) if cams.features is None else self.network.vectors(cams.features)
        else:
            outputs = self.network.run(pixels, vectors=wanted)
            batch.logits[rows], vectors = outputs.logits, outputs.vectors
        if vectors is not None:
            batch.distances |= zip(rows, self._distances(vectors.float().cpu().numpy(), confidence), strict=True)

    def _follow_changed_labels(
        self,
        batch: _Batch,
        pixels: torch.Tensor,
        explanations: Sequence[ExplanationRequest | None],
        probabilities: np.ndarray,
    ) -> None:
        """Explain again where full precision changed the predicted class: the map must be that of the label shown."""
        for row in batch.maps:
            explanation, best = explanations[row], int(probabilities[row].argmax())
            if explanation is None or explanation.target != PREDICTED or best == int(batch.logits[row].argmax()):
                continue
            again = self.explain(pixels[row : row + 1], [replace(explanation, target=best)])
            batch.maps[row] = again.maps[0].cpu().numpy()

    def explain(self, batch: torch.Tensor, explanations: Sequence[ExplanationRequest]) -> Cams:
        """Compute the maps of a normalised batch (B, 3, H, W), by quick requests of one method and layer.

        Raises:
            ExplanationError: the method cannot explain this network, or there is no such layer.
        """
        first = explanations[0]
        if self.has_classical_head:
            raise ExplanationError(
                f"{self.entry.id} decides by a classical classifier, which has no gradients: "
                f"{method_of(first.method).title} cannot explain it. Choose {method_of(MODEL_FREE).title}."
            )
        targets = torch.tensor([e.target for e in explanations], device=self.device)
        against = None if first.against is None else torch.tensor([e.against for e in explanations], device=self.device)
        return explain_batch(self.network, batch, targets, first.method, first.layer or self.layer, against)

    def steps(self, picture: np.ndarray, explanation: ExplanationRequest) -> Generator[float, None, np.ndarray]:
        """Explain one picture by a slow method, step by step in full precision.

        Yields:
            The share that is done, 0..1.

        Returns:
            The map (h, w) float32.

        Raises:
            ExplanationError: the method cannot explain this network, or cannot compare two classes.
        """
        method = method_of(explanation.method)
        if self.has_classical_head and not method.any_model:
            self.explain(self._batch([picture]), [explanation])  # raises, with the reason
        if explanation.against is not None:
            raise ExplanationError(f"{method.title} cannot set one class against another; choose Grad-CAM.")
        layer = explanation.layer or self.layer
        pixels = self._batch([picture])
        values = yield from steps(self.network, pixels, explanation.target, explanation.method, layer)
        return values.float().cpu().numpy()

    def embed(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the vectors before the last layer, float32 (n, d), of pictures as `pixels` gives them."""
        found = self._run_arrays(pictures)
        if found is not None:
            return found.vectors
        with autocast(self.device, self.bf16):
            return self._embed(self._batch(pictures)).cpu().numpy()

    def capture(self, picture: np.ndarray, layer: str | None) -> FeatureMap:
        """Compute the feature map of one picture (see `pixels`), in full precision. Raises ExplanationError."""
        return capture(self.network, self._batch([picture]), None, layer or self.layer)

    def nearest(self, picture: np.ndarray, count: int) -> list[Neighbour]:
        """Find the training pictures nearest to one picture (see `pixels`); none where the entry does not name them.

        Raises:
            EntryError: the entry does not decide by its neighbours, or their list does not fit.
        """
        known = read_neighbours(self.entry.folder / NEIGHBOURS)
        head = self.network.classical_head
        if head is None or known is None:
            return []
        rows, distances = head.nearest(self.embed([picture]), count)
        if rows.max(initial=0) >= len(known):
            raise EntryError(f"{NEIGHBOURS} of {self.entry.id} does not fit its classifier.")
        named = known.iloc[rows]
        return [Neighbour(*row) for row in zip(named["file"], named["label"], distances.tolist(), strict=True)]

    def layers(self) -> list[str]:
        """Paths of layers that may be explained, from the input on; none for classical classifiers."""
        return [] if self.has_classical_head else layers_of(self.model, self.input_size)

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        """Vectors before the last layer, float32 (B, d), of a normalised batch."""
        vectors = self.network.run(batch, vectors=True).vectors
        if vectors is None:
            raise EntryError(f"{self.entry.id} gives no vectors before its last layer.")
        return vectors

    def _distances(self, vectors: np.ndarray, confidence: np.ndarray | None) -> list[float | None]:
        """Out-of-distribution distances of vectors (B, d); None each where the entry has no detector."""
        detector = self.ood_detector
        found: list[float | None] = [None] * len(vectors)
        return found if detector is None else detector.distances(vectors, confidence).tolist()

    def _run_arrays(self, pictures: Sequence[np.ndarray]) -> Arrays | None:
        """Run pictures by the backend without torch; None where torch runs the network."""
        if self.network.backend == "torch":
            return None
        return self.network.run_arrays(self.prepare.normalise_array(np.stack(pictures)))

    def _batch(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(pictures)).to(self.device, non_blocking=True)
        return self.prepare.normalise(pixels)

    def _settle(self, batch: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
        """Probabilities float64 (B, classes); answers that bf16 leaves unclear are computed again in fp32."""
        probabilities = (logits / self.temperature).softmax(1)
        if self.bf16 and self._recompute_unclear:
            unclear = probabilities.amax(1) < CLEAR_PROBABILITY
            if unclear.any():
                again = self.network.run(batch[unclear]).logits
                probabilities[unclear] = (again / self.temperature).softmax(1)
        return self._checked(probabilities.double().cpu().numpy())

    def _checked(self, probabilities: np.ndarray) -> np.ndarray:
        if not np.isfinite(probabilities).all():
            raise EntryError(f"{self.entry.id} gave no number for this picture; its weights may be damaged.")
        return probabilities


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute probabilities float64 of logits (B, classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _same_work(explanations: Sequence[ExplanationRequest | None]) -> list[list[int]]:
    """Rows of a batch that one pass of the network can answer: without a map, or with one by one method and layer."""
    groups: dict[tuple[str, str | None, bool] | None, list[int]] = {}
    for row, explanation in enumerate(explanations):
        quick = explanation is not None and explanation.quick
        key = (explanation.method, explanation.layer, explanation.against is None) if explanation and quick else None
        groups.setdefault(key, []).append(row)
    return list(groups.values())
