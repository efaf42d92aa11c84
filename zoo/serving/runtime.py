"""How does anybody get an answer? Loaded models, least recently used first out, behind one engine a device."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zoo.attribution import DEFAULT, METHODS, PREDICTED, ExplanationError
from zoo.attribution.concepts import Concepts, factorise, judge
from zoo.attribution.faithfulness import Ask, Faithfulness, faithfulness
from zoo.entry import WEIGHTS, Entry, EntryError
from zoo.imaging.preprocess import augmented_views, place_map, region_of
from zoo.scores.calibration import unseen_laboratory_confidence
from zoo.serving.engine import (
    BATCH_SIZE,
    BATCH_WAIT,
    BusyError,
    Client,
    Engine,
    EngineStatus,
    StoppedError,
    Ticket,
    give_back,
)
from zoo.serving.heads import Neighbour
from zoo.serving.loaded import PRECISIONS, Answer, ExplanationRequest, LoadedModel, resolve_device
from zoo.serving.ood import Familiarity, familiarity
from zoo.sources.hub import fetch

__all__ = ["BATCH_SIZE", "BusyError", "Client", "Explanation", "ExplanationError", "Prediction", "Runtime", "Ticket"]

MAX_MODEL_BYTES = 4_000_000_000
WATCH_INTERVAL = 0.2  # seconds between two looks at work that is watched


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture: label, its probability, one probability a label, and the seconds its batch took.

    `distance` from what the model knows (see `zoo.serving.ood.familiarity`); None where it has no gate.
    `unseen_confidence` is the probability that the answer is right in a laboratory that the model never saw (see
    `zoo.scores.calibration`); None where it was not measured.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    seconds: float
    distance: float | None = None
    unseen_confidence: float | None = None

    @property
    def familiarity(self) -> Familiarity | None:
        """Whether the picture is like what the model knows; None where it has no gate."""
        return familiarity(self.distance)


@dataclass(frozen=True)
class Explanation:
    """The evidence in one picture for `label`: `values` is H×W float32 in 0..1 at the picture's own resolution.

    Each map is divided by its own maximum: strengths of two maps cannot be compared. `against` is the class that the
    evidence sets `label` off from, None for all. `cam` is the map at the network's own resolution and input; None for
    ensembles, whose members see different parts.
    """

    prediction: Prediction
    label: str
    values: np.ndarray
    method: str = DEFAULT
    against: str | None = None
    cam: np.ndarray | None = None


class Runtime:
    """Loaded models, least recently used first out, bounded by bytes. Safe to share between threads."""

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = BATCH_SIZE,
        max_bytes: int = MAX_MODEL_BYTES,
        batch_wait: float = BATCH_WAIT,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.device = resolve_device(device)
        self.precision, self.batch_size, self.max_bytes = precision, batch_size, max_bytes
        self.engine = Engine(str(self.device), batch_size, batch_wait)
        self._models: OrderedDict[tuple[str, int], Future[LoadedModel]] = OrderedDict()
        self._lock = threading.Lock()

    def model(self, entry: Entry) -> LoadedModel:
        """The entry's network, loaded if need be. Raises EntryError if it cannot be loaded.

        Clients of one entry wait for one loading; clients of others are not held up by it.
        """
        entry = fetch(entry)
        # the time of change is part of the key: an entry trained again is loaded again
        key = (str(entry.folder.resolve()), _changed(entry.folder / WEIGHTS))
        with self._lock:
            place = self._models.get(key)
            if found := place is not None:
                self._models.move_to_end(key)
            else:
                place = self._models[key] = Future()
        if found:
            return place.result()
        try:
            place.set_result(LoadedModel(entry, self.device, self.precision))
        except BaseException as error:
            with self._lock:
                self._models.pop(key, None)
            place.set_exception(error)
            raise
        self._make_room()
        return place.result()

    def load(self, entry: Entry) -> None:
        """Load the entry's model, or an ensemble's members, if need be. Raises as `model`."""
        for single in entry.networks:
            self.model(single)

    def _make_room(self) -> None:
        """Put away what was not used for longest; what is queued for it is answered all the same."""
        with self._lock:
            loaded = {key: place.result() for key, place in self._models.items() if _is_loaded(place)}
            total = sum(model.bytes for model in loaded.values())
            # the last one is in use
            for key in list(loaded)[:-1]:
                if total <= self.max_bytes:
                    break
                del self._models[key]
                total -= loaded.pop(key).bytes
        del loaded
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        give_back()

    @property
    def loaded_bytes(self) -> int:
        """Bytes of all models that are loaded now."""
        with self._lock:
            return sum(place.result().bytes for place in self._models.values() if _is_loaded(place))

    def submit(
        self, entry: Entry, image: Image.Image, wish: ExplanationRequest | None = None, client: Client | None = None
    ) -> Ticket:
        """Queue an RGB picture; the ticket gives an Answer. Raises EntryError (model unusable) or BusyError (full).

        An ensemble's members are asked each for itself, so that their batches are shared with everybody who asks them
        directly.
        """
        return self._submit(entry, image, wish, client or Client())

    def prediction(self, entry: Entry, answer: Answer) -> Prediction:
        """An Answer in words."""
        labels = entry.labels
        best = int(answer.probabilities.argmax())
        shares = {label: float(p) for label, p in zip(labels, answer.probabilities, strict=True)}
        sure = unseen_laboratory_confidence(entry, shares)
        return Prediction(labels[best], shares[labels[best]], shares, answer.seconds, answer.distance, sure)

    def classify(self, entry: Entry, image: Image.Image) -> Prediction:
        """Classify one RGB picture. Raises EntryError (model unusable) or BusyError (queue full)."""
        return self.prediction(entry, self.submit(entry, image).result())

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
    ) -> Explanation:
        """The evidence in an RGB picture for `label` (None: the predicted one), by one of `methods_for` the entry.

        `against` sets the label off from another one, `layer` looks elsewhere than the entry says. `watch` is called
        with the ticket several times a second until there is an answer; what it raises stops the work. Raises
        EntryError (model unusable, or no such label), ExplanationError (the method cannot explain this model) or
        BusyError.
        """
        for named in (label, against):
            if named is not None and named not in entry.labels:
                raise EntryError(f"{entry.id} has no class {named!r}. Its classes: {', '.join(entry.labels)}.")
        method = method or methods_for(entry)[0]
        if method not in METHODS:
            raise ExplanationError(f"There is no method {method!r}. Choose one of {', '.join(METHODS)}.")
        wish = ExplanationRequest(
            PREDICTED if label is None else entry.labels.index(label),
            method,
            None if against is None else entry.labels.index(against),
            layer,
        )
        answer = _await(self._submit(entry, image, wish, client or Client()), watch)
        prediction = self.prediction(entry, answer)
        if answer.cam is None:
            raise EntryError(f"{entry.id} gave no map.")
        values = answer.cam if entry.members else self._placed(entry, image, answer.cam)
        cam = None if entry.members else answer.cam
        return Explanation(prediction, label or prediction.label, _scaled(values), method, against, cam)

    def measure_faithfulness(
        self, entry: Entry, image: Image.Image, explanation: Explanation, client: Client | None = None
    ) -> Faithfulness:
        """How faithful an explanation of a picture is to the model, by asking it about changed pictures.

        Raises ExplanationError for ensembles, and as `explain`.
        """
        if explanation.cam is None:
            raise ExplanationError(f"{entry.id} is an ensemble: judge the maps of its members.")
        model = self.model(entry)
        label = entry.labels.index(explanation.label)
        return faithfulness(self.predictor(entry, client), model.pixels(image), explanation.cam, label)

    def predictor(self, entry: Entry, client: Client | None = None) -> Ask:
        """A function from pictures as the entry's network sees them, uint8 (3, H, W), to probabilities (n, classes)."""
        model, who = self.model(entry), client or Client()

        def ask(pictures: Sequence[torch.Tensor]) -> np.ndarray:
            tickets = [self.engine.submit(model, picture, None, who) for picture in pictures]
            return np.stack([ticket.result().probabilities for ticket in tickets])

        return ask

    def concepts(
        self, entry: Entry, image: Image.Image, layer: str | None = None, client: Client | None = None
    ) -> Concepts:
        """The parts that the entry's network tells apart in a picture, their maps at the picture's own resolution.

        Raises as `explain`.
        """
        if entry.members or not methods_for(entry)[0] == DEFAULT:
            raise ExplanationError(f"{entry.id} has no feature map of its own: it cannot be parted. Choose a network.")
        model, client = self.model(entry), client or Client()
        pixels = model.pixels(image)
        seen = self.engine.work(model, lambda: model.look(pixels, layer), client).result()
        # the long part needs no network: it is done here, not in the thread that everybody waits for
        maps, vectors = factorise(seen.features)
        shares = self.engine.work(
            model, lambda: judge(model.model, seen.native, vectors, layer or model.layer), client
        ).result()
        return Concepts(np.stack([self._placed(entry, image, one) for one in maps]), shares)

    def neighbours(
        self, entry: Entry, image: Image.Image, count: int = 6, client: Client | None = None
    ) -> list[Neighbour]:
        """The training pictures that are nearest to a picture, for entries that decide by these; else none."""
        if entry.members:
            return []
        model = self.model(entry)
        pixels = model.pixels(image)
        return self.engine.work(model, lambda: model.nearest(pixels, count), client or Client()).result()

    def layers(self, entry: Entry) -> list[str]:
        """Layers of an entry that may be explained instead of its own. Raises EntryError if it cannot be loaded."""
        if entry.members:
            return []
        model = self.model(entry)
        return self.engine.work(model, model.layers, Client()).result()

    def waiting(self) -> int:
        """How many requests of all clients are queued."""
        return self.engine.waiting()

    def status(self) -> EngineStatus:
        """What the engine does now."""
        return self.engine.status()

    def close(self) -> None:
        """Answer what is queued, then end the engine."""
        self.engine.close()
        with self._lock:
            self._models.clear()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _submit(
        self, entry: Entry, image: Image.Image, wish: ExplanationRequest | None, client: Client, wait: bool = True
    ) -> Ticket:
        if entry.members:
            if wish is None:
                return _joined(entry, [self._submit(member, image, None, client, wait) for member in entry.networks])
            return self._explain_together(entry, image, wish, client)
        model = self.model(entry)
        pixels, confidence = model.prepare.look(image)
        seen = augmented_views(pixels, entry.views)
        if len(seen) == 1:
            return self.engine.submit(model, pixels, wish, client, wait, confidence)
        whole = _mean([self.engine.submit(model, view, None, client, wait, confidence) for view in seen])
        if wish is None:
            return whole

        def parts(answer: Answer) -> list[Ticket]:
            target = int(answer.probabilities.argmax()) if wish.target == PREDICTED else wish.target
            return [self.engine.submit(model, pixels, replace(wish, target=target), client, wait=False)]

        return _explained(whole, parts, lambda answer, found: replace(answer, cam=found[0].cam))

    def _explain_together(self, entry: Entry, image: Image.Image, wish: ExplanationRequest, client: Client) -> Ticket:
        """The members' maps for one label, at the picture's size, averaged with the ensemble's weights."""
        members = entry.networks
        for member in members:
            self.model(member)  # loaded here: the engine's own thread must not wait for it
        whole = _joined(entry, [self._submit(member, image, None, client) for member in members])

        def parts(answer: Answer) -> list[Ticket]:
            label = entry.labels[int(answer.probabilities.argmax()) if wish.target == PREDICTED else wish.target]
            against = None if wish.against is None else entry.labels[wish.against]
            wishes = [
                ExplanationRequest(
                    entry.member_class(label, member),
                    wish.method,
                    None if against is None else entry.member_class(against, member),
                    wish.layer,
                )
                for member in members
            ]
            both = zip(members, wishes, strict=True)
            return [self._submit(member, image, own, client, wait=False) for member, own in both]

        return _explained(whole, parts, lambda answer, found: self._averaged(entry, image, answer, found))

    def _averaged(self, entry: Entry, image: Image.Image, answer: Answer, answers: Sequence[Answer]) -> Answer:
        both = zip(entry.weighted_members, answers, strict=True)
        maps = [share * _scaled(self._placed(member, image, answer.cam)) for (member, share), answer in both]
        values = sum(maps, np.zeros_like(maps[0]))
        return replace(answer, cam=values, seconds=answer.seconds + sum(a.seconds for a in answers))

    def _placed(self, entry: Entry, image: Image.Image, cam: np.ndarray | None) -> np.ndarray:
        """A network's map (h, w) laid over the picture it was given: (H, W)."""
        if entry.config is None or cam is None:
            raise EntryError(f"{entry.id} gave no map.")
        region = region_of(image, entry.config.pretrained_cfg.model_dump(), entry.config.zoo.crop)
        return place_map(_scaled(cam), image.size, region).clip(0, 1)


def _await(ticket: Ticket, watch: Callable[[Ticket], None] | None) -> Answer:
    """What the ticket gives. Whatever ends the waiting early, ends the work."""
    try:
        while True:
            try:
                return ticket.result(WATCH_INTERVAL if watch else None)
            except TimeoutError:
                if watch is None or ticket.done():
                    raise
                watch(ticket)
    except BaseException:
        ticket.stop()
        raise


def methods_for(entry: Entry) -> list[str]:
    """Names of the methods that can explain an entry, the usual one first."""
    if any(single.config is not None and single.config.zoo.head for single in entry.networks):
        return [name for name, method in METHODS.items() if method.any_model]
    return [DEFAULT, *(name for name in METHODS if name != DEFAULT)]


def _mean(
    tickets: Sequence[Ticket],
    weights: Sequence[float] | None = None,
    read: Callable[[int, np.ndarray], np.ndarray] = lambda _, shares: shares,
) -> Ticket:
    """One answer of several: the weighted mean of what `read` makes of the probabilities of each, by its number."""
    joined = Ticket()
    joined.set_running_or_notify_cancel()

    def mean() -> Answer:
        answers = [ticket.result() for ticket in tickets]
        known = [answer.distance for answer in answers]
        distance = None if None in known else float(np.average(known, weights=weights))
        parts = [read(number, answer.probabilities) for number, answer in enumerate(answers)]
        return Answer(np.average(parts, axis=0, weights=weights), None, max(a.seconds for a in answers), distance)

    _when_all(tickets, mean, joined)
    return joined


def _explained(
    whole: Ticket, ask: Callable[[Answer], list[Ticket]], join: Callable[[Answer, list[Answer]], Answer]
) -> Ticket:
    """A ticket for an explanation of the answer that `whole` gives: what `join` makes of what `ask` asked for."""
    ticket = Ticket()
    ticket.set_running_or_notify_cancel()

    def known(_: Future[Answer]) -> None:
        try:
            if ticket.stopped:
                raise StoppedError("This explanation was stopped.")
            answer = whole.result()
            parts = ask(answer)
        except BaseException as error:
            ticket.set_exception(error)
            return
        _when_all(parts, lambda: join(answer, [part.result() for part in parts]), ticket)

    whole.add_done_callback(known)
    return ticket


def _joined(entry: Entry, tickets: Sequence[Ticket]) -> Ticket:
    """One answer of an ensemble's members' answers, joined by label."""
    counts = [share for _, share in entry.weighted_members]
    return _mean(
        tickets, counts, lambda n, shares: entry.map_probabilities(shares[None], entry.weighted_members[n][0].labels)[0]
    )


def _when_all(tickets: Sequence[Ticket], make: Callable[[], Answer], whole: Ticket) -> None:
    """Give `whole` what `make` makes once all tickets are done; stopping it stops them, its progress is their mean."""
    left = threading.Semaphore(len(tickets) - 1)
    whole.parts = tuple(tickets)

    def arrived(_: Future[Answer]) -> None:
        if left.acquire(blocking=False):
            return  # others are still to come
        try:
            whole.set_result(make())
        except BaseException as error:
            whole.set_exception(error)

    for ticket in tickets:
        ticket.add_done_callback(arrived)


def _scaled(values: np.ndarray) -> np.ndarray:
    top = float(values.max())
    return values / top if top > 0 else values


def _is_loaded(place: Future[LoadedModel]) -> bool:
    return place.done() and place.exception() is None


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise EntryError(f"{path} cannot be read: {error.strerror}.") from error
