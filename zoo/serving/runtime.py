"""Answers for pictures: classification, explanation and what belongs to them, by any entry of the zoo.

A picture is located, prepared and sent to the engine; what these steps find out (`LocatedCell`, `NetworkInput`) is
handed on, so that no step searches for the cell again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo.attribution import DEFAULT, METHODS, PREDICTED, ExplanationError, method_of
from zoo.attribution.concepts import Concepts, classify_parts, factorise
from zoo.attribution.faithfulness import Faithfulness, Predict, faithfulness
from zoo.entry import Entry, EntryError
from zoo.imaging.localise import LocatedCell, locate_cell
from zoo.imaging.preprocess import NetworkInput, augmented_views
from zoo.lazy import lazy_module
from zoo.limits import MODELS_MB
from zoo.scores.sample.samples import Sample
from zoo.serving.backends import BACKENDS, default_backend
from zoo.serving.client_queues import QueueLimits
from zoo.serving.devices import PRECISIONS, default_precision, find_device
from zoo.serving.engine import BATCH_SIZE, BATCH_WAIT, Engine, EngineStatus
from zoo.serving.heads import Neighbour
from zoo.serving.models.loaded import LoadedModel
from zoo.serving.models.model_cache import Loader, ModelCache
from zoo.serving.requests import (
    Answer,
    BusyError,
    Client,
    ExplanationRequest,
    Ticket,
    answer_after,
    mean_answer,
    wait_for,
)
from zoo.serving.results import Explanation, Prediction, on_picture, predict, scaled
from zoo.threads import preparing

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

__all__ = ["BATCH_SIZE", "BusyError", "Client", "Explanation", "ExplanationError", "Prediction", "Runtime", "Ticket"]

WATCH_INTERVAL = 0.2  # seconds between two calls of `watch` while an explanation is computed


@dataclass(frozen=True, eq=False)
class _Network:
    """One network of an entry, with the picture as it sees it."""

    entry: Entry
    model: LoadedModel
    seen: NetworkInput


class Runtime:
    """Entries, loaded when first used, behind the engine of one device. Safe to share between threads.

    Example:
        >>> with Runtime("cpu") as runtime:
        ...     prediction = runtime.classify(zoo.get_entry("cnn60"), zoo.decode(Path("cell.png")))
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str | None = None,
        batch_size: int = BATCH_SIZE,
        max_bytes: int | None = None,
        batch_wait: float = BATCH_WAIT,
        *,
        limits: QueueLimits | None = None,
        watch_interval: float = WATCH_INTERVAL,
        locate: Callable[[Image.Image, str], LocatedCell] = locate_cell,
        loader: Loader | None = None,
        backend: str | None = None,
    ) -> None:
        """Start the engine.

        Args:
            device: auto, cpu, cuda or cuda:N.
            precision: one of PRECISIONS; auto measures each network. None: as HEMAZOO_PRECISION says, else auto.
            batch_size: pictures that are run at once.
            max_bytes: bytes of loaded models, by default the limit MODELS_MB; the least recently used are unloaded.
            batch_wait: seconds that a batch which is not full waits for more requests.
            limits: bounds of the waiting requests.
            watch_interval: seconds between two calls of `watch` in `explain`.
            locate: finds the cell of a picture, as `locate_cell`.
            loader: loads an entry's network; None for `LoadedModel`.
            backend: one of BACKENDS; auto measures each network. None: as HEMAZOO_BACKEND says, else auto.

        Raises:
            ValueError: there is no such precision or backend.
            EntryError: there is no such device.
        """
        precision = precision or default_precision()
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        backend = backend or default_backend()
        if backend not in BACKENDS:
            raise ValueError(f"backend is one of {', '.join(BACKENDS)}, not {backend!r}")
        self.device_name = find_device(device)
        self.precision, self.batch_size = precision, batch_size
        self.engine = Engine(self.device_name, batch_size, batch_wait, limits)
        self._models = ModelCache(
            self.device_name, precision, max_bytes or MODELS_MB.bytes, loader or partial(LoadedModel, backend=backend)
        )
        self._locate, self._watch_interval = locate, watch_interval

    @property
    def device(self) -> torch.device:
        """The device of networks, unless another library than torch runs them on the CPU."""
        return torch.device(self.device_name)

    def model(self, entry: Entry) -> LoadedModel:
        """Return the network of an entry that is no ensemble, loading it if need be.

        Raises:
            EntryError: it cannot be loaded.
        """
        return self._models.get(entry)

    def load(self, entry: Entry) -> None:
        """Load an entry's network, or those of an ensemble, if need be. Raises as `model`."""
        for network in entry.networks:
            self.model(network)

    @property
    def loaded_models(self) -> list[str]:
        """Ids of the entries whose networks are loaded now."""
        return [model.entry.id for model in self._models.loaded]

    @property
    def loaded_bytes(self) -> int:
        """Bytes of all models that are loaded now."""
        return sum(model.bytes for model in self._models.loaded)

    def submit(
        self,
        entry: Entry,
        image: Image.Image,
        explanation: ExplanationRequest | None = None,
        client: Client | None = None,
    ) -> Ticket:
        """Queue a picture.

        Members of an ensemble are queued one by one, so that they share batches with requests for the members alone.

        Args:
            entry: which model to use.
            image: RGB picture.
            explanation: map that is wanted; its label numbers are those of `entry`.
            client: who asks.

        Returns:
            Ticket of an `Answer`.

        Raises:
            EntryError: the model is unusable.
            BusyError: the queue stayed full.
        """
        return self._submit(entry, self._networks(entry, image), explanation, client or Client())

    def prediction(self, entry: Entry, answer: Answer, sample: Sample | None = None) -> Prediction:
        """Name the numbers of an answer, and apply the prior shares of a sample; None for the entry's usual one.

        Raises:
            SampleError: the sample rules out every class of the entry.
        """
        network = dict(zip(entry.labels, answer.probabilities.tolist(), strict=True))
        deciding = {} if answer.deciding is None else dict(zip(entry.labels, answer.deciding.tolist(), strict=True))
        named = predict(entry, network, sample or entry.default_sample, answer.seconds, answer.distance, deciding)
        return replace(named, backend=answer.backend)

    def classify(self, entry: Entry, image: Image.Image, sample: Sample | None = None) -> Prediction:
        """Classify one RGB picture of a sample; None for the entry's usual one.

        Raises:
            EntryError: the model is unusable.
            SampleError: the sample rules out every class of the entry.
            BusyError: the queue stayed full.
        """
        return self.prediction(entry, self.submit(entry, image).result(), sample)

    def explain(
        self,
        entry: Entry,
        image: Image.Image,
        label: str | None = None,
        method: str | None = None,
        against: str | None = None,
        layer: str | None = None,
        client: Client | None = None,
        watch: Callable[[Ticket], None] | None = None,
        sample: Sample | None = None,
    ) -> Explanation:
        """Explain the classification of one RGB picture: the evidence for the network's score of a class.

        Args:
            entry: which model to use.
            image: RGB picture.
            label: class to explain; None for the predicted one.
            method: one of `methods_for(entry)`; None for the first.
            against: class to set `label` off from; None for all.
            layer: path of the layer to explain; None for the entry's own.
            client: who asks.
            watch: called with the ticket several times a second until there is an answer; any error that it raises
                cancels the work.
            sample: what the picture is of; None for the entry's usual one.

        Raises:
            EntryError: the model is unusable, or has no such label.
            SampleError: the sample rules out every class of the entry.
            ExplanationError: the method cannot explain this model.
            BusyError: the queue stayed full.
        """
        for named in (label, against):
            if named is not None and named not in entry.labels:
                raise EntryError(f"{entry.id} has no class {named!r}. Its classes: {', '.join(entry.labels)}.")
        method = method or methods_for(entry)[0]
        method_of(method)  # raises where there is none
        request = ExplanationRequest(
            PREDICTED if label is None else entry.labels.index(label),
            method,
            None if against is None else entry.labels.index(against),
            layer,
        )
        networks = self._networks(entry, image)
        ticket = self._submit(entry, networks, request, client or Client())
        answer = wait_for(ticket, watch, self._watch_interval)
        prediction = self.prediction(entry, answer, sample)
        if label is None and prediction.label != prediction.network_label:
            # the sample decided otherwise than the network: the map must be that of the class that is shown
            request = replace(request, target=entry.labels.index(prediction.label))
            answer = wait_for(self._submit(entry, networks, request, client or Client()), watch, self._watch_interval)
        label = label or prediction.label
        if answer.cam is None:
            raise EntryError(f"{entry.id} gave no map.")
        if entry.members:  # the map lies on the picture already
            return Explanation(prediction, label, scaled(answer.cam), method, against)
        seen = networks[0].seen
        return Explanation(prediction, label, scaled(on_picture(seen, answer.cam)), method, against, answer.cam, seen)

    def measure_faithfulness(
        self, entry: Entry, explanation: Explanation, client: Client | None = None
    ) -> Faithfulness:
        """Measure how faithful an explanation is to the model, by classifying changed versions of the picture.

        Raises:
            ExplanationError: the entry is an ensemble.
            EntryError: the model is unusable.
            BusyError: the queue stayed full.
        """
        if explanation.cam is None or explanation.seen is None:
            raise ExplanationError(f"{entry.id} is an ensemble: measure the maps of its members.")
        label = entry.labels.index(explanation.label)
        return faithfulness(
            self.predictor(entry, client), torch.from_numpy(explanation.seen.pixels), explanation.cam, label
        )

    def predictor(self, entry: Entry, client: Client | None = None) -> Predict:
        """Make a function from network inputs, uint8 (3, H, W) each, to probabilities (n, classes)."""
        model, who = self.model(entry), client or Client()

        def predict(pictures: Sequence[torch.Tensor]) -> np.ndarray:
            tickets = [self.engine.submit(model, picture.numpy(), None, who) for picture in pictures]
            return np.stack([ticket.result().probabilities for ticket in tickets])

        return predict

    def concepts(
        self, entry: Entry, image: Image.Image, layer: str | None = None, client: Client | None = None
    ) -> Concepts:
        """Find the parts of a picture that the entry's network distinguishes; maps at the picture's own resolution.

        Raises:
            ExplanationError: the entry is an ensemble or a classical classifier, or has no such layer.
            EntryError: the model is unusable.
            BusyError: the queue stayed full.
        """
        if entry.members or methods_for(entry)[0] != DEFAULT:
            raise ExplanationError(
                f"{entry.id} has no feature map of its own, so that it cannot be divided into parts. Choose a network."
            )
        network, client = self._networks(entry, image)[0], client or Client()
        model, pixels = network.model, network.seen.pixels
        features = self.engine.work(model, lambda: model.capture(pixels, layer), client).result()
        # the long part needs no network: it runs here, not in the thread that all requests wait for
        maps, vectors = factorise(features.features)
        probabilities = self.engine.work(
            model, lambda: classify_parts(model.network, features.native, vectors, layer or model.layer), client
        ).result()
        return Concepts(np.stack([on_picture(network.seen, one) for one in maps]), probabilities)

    def neighbours(
        self,
        entry: Entry,
        image: Image.Image,
        count: int = 6,
        client: Client | None = None,
        seen: NetworkInput | None = None,
    ) -> list[Neighbour]:
        """Find the training pictures nearest to a picture, for entries that decide by these; none for others.

        Args:
            entry: which model to use.
            image: RGB picture.
            count: how many to find.
            client: who asks.
            seen: `Explanation.seen` of the picture, where it was explained before.

        Raises:
            EntryError: the model is unusable, or its list of training pictures does not fit.
        """
        if entry.members:
            return []
        model = self.model(entry)
        pixels = seen.pixels if seen else model.prepare.input(image, self._locate(image, model.prepare.crop)).pixels
        return self.engine.work(model, lambda: model.nearest(pixels, count), client or Client()).result()

    def layers(self, entry: Entry) -> list[str]:
        """List the layers of an entry that may be explained instead of its own.

        Raises:
            EntryError: the model is unusable.
        """
        if entry.members:
            return []
        model = self.model(entry)
        return self.engine.work(model, model.layers, Client()).result()

    def waiting(self) -> int:
        """Number of requests of all clients that are queued."""
        return self.engine.waiting()

    def status(self) -> EngineStatus:
        """State of the engine."""
        return self.engine.status()

    def close(self) -> None:
        """Answer what is queued, then end the engine."""
        self.engine.close()
        self._models.clear()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _networks(self, entry: Entry, image: Image.Image) -> list[_Network]:
        """The entry's networks with the picture as each sees it; the cell is located once for each kind of crop."""
        cells: dict[str, LocatedCell] = {}
        networks = []
        for single in entry.networks:
            model = self.model(single)
            crop = model.prepare.crop
            with preparing():
                if crop not in cells:
                    cells[crop] = self._locate(image, crop)
                networks.append(_Network(single, model, model.prepare.input(image, cells[crop])))
        return networks

    def _submit(
        self, entry: Entry, networks: Sequence[_Network], explanation: ExplanationRequest | None, client: Client
    ) -> Ticket:
        if not entry.members:
            return self._submit_network(networks[0], explanation, client)
        answer = self._joined(entry, [self._submit_network(network, None, client) for network in networks])
        if explanation is None:
            return answer

        def send(answer: Answer) -> list[Ticket]:
            requests = _member_requests(entry, explanation, answer)
            pairs = zip(networks, requests, strict=True)
            return [self._submit_network(network, request, client, wait=False) for network, request in pairs]

        return answer_after(answer, send, lambda answer, parts: _mean_map(entry, networks, answer, parts))

    def _submit_network(
        self, network: _Network, explanation: ExplanationRequest | None, client: Client, wait: bool = True
    ) -> Ticket:
        """Queue a picture for one network, in as many views as its entry asks for."""
        model, pixels, confidence = network.model, network.seen.pixels, network.seen.confidence
        views = augmented_views(pixels, network.entry.views)
        if len(views) == 1:
            return self.engine.submit(model, pixels, explanation, client, wait, confidence)
        mean = mean_answer([self.engine.submit(model, view, None, client, wait, confidence) for view in views])
        if explanation is None:
            return mean

        def send(answer: Answer) -> list[Ticket]:
            target = int(answer.probabilities.argmax()) if explanation.target == PREDICTED else explanation.target
            return [self.engine.submit(model, pixels, replace(explanation, target=target), client, wait=False)]

        return answer_after(mean, send, lambda answer, parts: replace(answer, cam=parts[0].cam))

    def _joined(self, entry: Entry, tickets: Sequence[Ticket]) -> Ticket:
        """One answer of an ensemble's members' answers, joined by label."""
        members, weights = zip(*entry.weighted_members, strict=True)
        return mean_answer(
            tickets,
            weights,
            lambda number, row: entry.map_probabilities(row[None], members[number].labels)[0],
            entry.config.zoo.member_mean,
            entry.deciding_member,
        )


def methods_for(entry: Entry) -> list[str]:
    """List the names of the methods that can explain an entry, the default one first."""
    if any(single.config.zoo.head for single in entry.networks):
        return [name for name, method in METHODS.items() if method.any_model]
    return [DEFAULT, *(name for name in METHODS if name != DEFAULT)]


def _member_requests(entry: Entry, explanation: ExplanationRequest, answer: Answer) -> list[ExplanationRequest]:
    """Explanation requests for an ensemble's members: the same class, by their own label numbers."""
    target = int(answer.probabilities.argmax()) if explanation.target == PREDICTED else explanation.target
    label = entry.labels[target]
    against = None if explanation.against is None else entry.labels[explanation.against]
    return [
        replace(
            explanation,
            target=entry.member_class(label, member),
            against=None if against is None else entry.member_class(against, member),
        )
        for member in entry.networks
    ]


def _mean_map(entry: Entry, networks: Sequence[_Network], answer: Answer, parts: Sequence[Answer]) -> Answer:
    """The ensemble's answer with the weighted mean of its members' maps, at the picture's size."""
    maps = [
        weight * scaled(on_picture(network.seen, part.cam))
        for network, (_, weight), part in zip(networks, entry.weighted_members, parts, strict=True)
    ]
    values = sum(maps, np.zeros_like(maps[0]))
    return replace(answer, cam=values, seconds=answer.seconds + sum(part.seconds for part in parts))
