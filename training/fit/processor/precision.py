"""Choice of number format, memory format and depthwise gradients of a training, measured on the device at hand.

A trial runs a few steps in each. What it finds is kept in the cache folder, by processor, network and batch.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from training.fit import checkpoint
from training.fit.networks.network import build_model
from training.fit.processor.depthwise import use_fast_gradients, use_plain_gradients
from training.fit.processor.devices import autocast
from training.fit.stopping import is_out_of_memory
from training.recipe import Recipe
from zoo.cache import cache_folder
from zoo.cli.common import print_message
from zoo.files import write_json
from zoo.limits import TRIAL_SECONDS
from zoo.serving.devices import GIVE_UP, MIN_BF16_GAIN, device_name, has_native_bf16

AUTO = "auto"
TRIAL_PICTURES = {"cpu": 8}  # of a step
GPU_PICTURES = 64  # with few of them a GPU waits for the processor
TRIAL_STEPS = 4  # the first one warms up
SLOW_STEP = 1.0  # seconds from which on even the step that warms up is compared
MIN_FORMAT_GAIN = 1.03  # speed from which on another memory format or other gradients are used
VERSION = 1  # of what is kept; part of the key


@dataclass(frozen=True)
class Arithmetic:
    """Formats in which steps are computed, which change weights by rounding only.

    Attributes:
        precision: "fp32", "bf16" or "fp16".
        channels_last: Whether pictures lie in memory pixel by pixel, instead of channel by channel.
        fast_depthwise: Whether depthwise convolutions have our own gradients (CPUs only).
    """

    precision: str = "fp32"
    channels_last: bool = True
    fast_depthwise: bool = True

    def __str__(self) -> str:
        words = [self.precision, "channels_last" if self.channels_last else "channels first"]
        return ", ".join([*words, *(["own depthwise gradients"] if self.fast_depthwise else [])])


Times = dict[Arithmetic, float]  # seconds of a step


def with_precision(recipe: Recipe, accelerator: Accelerator, unfinished: Path | None = None) -> Recipe:
    """The recipe with the arithmetic to train in, told on stderr; one that names a precision keeps it.

    Args:
        recipe: The recipe.
        accelerator: The process's device; the first of several processes decides for all.
        unfinished: Checkpoint that is continued, in the arithmetic that it began with.
    """
    device = accelerator.device
    if recipe.schedule.precision != AUTO:
        if accelerator.is_main_process:
            print_message(f"{device_name(device)}, {recipe.schedule.precision}: the recipe says so.")
        return recipe
    chosen: list[dict[str, Any]] = [{}]
    if accelerator.is_main_process:
        if unfinished:
            chosen = [checkpoint.arithmetic_of(unfinished)]
            print_message(f"{device_name(device)}, {chosen[0]['precision']}: the unfinished training began so.")
        else:
            chosen = [asdict(_kept_or_measured(recipe, device))]
    if accelerator.num_processes > 1:
        broadcast_object_list(chosen)
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=chosen[0])})


def _kept_or_measured(recipe: Recipe, device: torch.device) -> Arithmetic:
    """Result of an earlier trial of such a training, or of a new one; told on stderr."""
    path = cache_folder() / "trials" / f"{_key(recipe, device)}.json"
    times, when = _read(path), "an earlier trial"
    if times is None:
        times, when = _trial(recipe, device), "a trial"
        if not times:
            print_message(f"{device_name(device)}, {Arithmetic()}: there is not enough memory for a trial.")
            return Arithmetic()
        try:
            write_json(path, {"steps": [{**asdict(way), "seconds": seconds} for way, seconds in times.items()]})
        except OSError as error:
            print_message(f"The result of the trial cannot be kept: {error.strerror}. The next run measures again.")
    chosen = _fastest(times)
    told = "; ".join(f"{way} {1000 * seconds:.0f} ms" for way, seconds in sorted(times.items(), key=lambda t: t[1]))
    why = f"the fastest of {when} ({told} a step)" if len(times) > 1 else "nothing else is to be had here"
    lacks = "" if has_native_bf16(device) else " It has no bf16 arithmetic of its own."
    print_message(f"{device_name(device)}, {chosen}: {why}.{lacks}")
    return chosen


def seconds_a_picture(recipe: Recipe, device: torch.device) -> float | None:
    """Seconds of a training step for each picture now; None where no trial compared arithmetics.

    A trial keeps the best step of each arithmetic, perhaps on an idle machine: a few steps of the chosen one tell how
    long they take beside what else runs.

    Args:
        recipe: The recipe as it was before `with_precision`.
        device: The device.
    """
    times = _read(cache_folder() / "trials" / f"{_key(recipe, device)}.json")
    if times is None or len(times) < 2:  # a single way is not measured
        return None
    chosen = _fastest(times)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        now = _trial_of(recipe, device)[0].usual_seconds(chosen)
    return max(now, times[chosen]) / _trial_pictures(recipe, device)


def _trial_of(recipe: Recipe, device: torch.device) -> tuple[_Trial, bool]:
    """A trial of the recipe's network with random weights, and whether it has depthwise gradients of our own."""
    network = build_model(recipe.network.model_copy(update={"weights": "none"}), len(recipe.labels))
    depthwise = device.type == "cpu" and use_fast_gradients(network)
    return _Trial(network.to(device).train(), recipe, device), depthwise


def _trial_pictures(recipe: Recipe, device: torch.device) -> int:
    return max(2, min(TRIAL_PICTURES.get(device.type, GPU_PICTURES), recipe.schedule.batch_size))


def _key(recipe: Recipe, device: torch.device) -> str:
    """Identity of what decides the times: processor, threads, torch, network and batch."""
    processor: Any = dict(sorted(torch.cpu.get_capabilities().items())) if device.type == "cpu" else ""
    schedule, network = recipe.schedule, recipe.network
    named = (schedule.channels_last, schedule.fast_depthwise, schedule.batch_size)
    parts = (VERSION, torch.__version__, device_name(device), processor, named)
    built = (network.timm_name, network.timm_args, network.input_size, len(recipe.labels))
    return hashlib.sha256(json.dumps([*parts, *built], sort_keys=True, default=str).encode()).hexdigest()[:24]


def _read(path: Path) -> Times | None:
    """Times that were kept; None if there are none, or the file is damaged."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["steps"]
        times = {}
        for row in rows:
            seconds = float(row.pop("seconds"))
            way = Arithmetic(**row)
            if seconds <= 0 or way.precision not in ("fp32", "bf16", "fp16"):
                return None
            times[way] = seconds
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return times or None


def _fastest(times: Mapping[Arithmetic, float]) -> Arithmetic:
    """The fastest arithmetic; what rounds more, or is not the default, must gain something."""
    best: dict[str, Arithmetic] = {}
    for way in times:  # defaults come first
        before = best.get(way.precision)
        if before is None or times[way] * MIN_FORMAT_GAIN < times[before]:
            best[way.precision] = way
    chosen = next(iter(best.values()))
    for precision in ("bf16", "fp16"):
        if precision in best and times[best[precision]] * MIN_BF16_GAIN < times[chosen]:
            chosen = best[precision]
    return chosen


def _trial(recipe: Recipe, device: torch.device) -> Times:
    """Measure the precisions that the device has, then the formats of the fastest one, within TRIAL_SECONDS.

    Random numbers, and the network that will be trained, are left alone.
    """
    until = time.monotonic() + TRIAL_SECONDS.exact
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trial, depthwise = _trial_of(recipe, device)
        wanted = recipe.schedule
        layouts = [True, False] if wanted.channels_last == AUTO else [bool(wanted.channels_last)]
        gradients = [True, False] if wanted.fast_depthwise == AUTO else [bool(wanted.fast_depthwise)]
        if not depthwise:
            gradients = [False]
        first = [Arithmetic(precision, layouts[0], gradients[0]) for precision in _precisions(device)]
        times = trial.seconds(first, until) if len(first) * len(layouts) * len(gradients) > 1 else {first[0]: 1.0}
        if not times:
            return times
        chosen = _fastest(times)
        ways = [replace(chosen, channels_last=a, fast_depthwise=b) for a, b in product(layouts, gradients)]
        again = trial.seconds(ways, until) if len(ways) > 1 else {}
        return times | {way: min(seconds, times.get(way, seconds)) for way, seconds in again.items()}


def _precisions(device: torch.device) -> Iterator[str]:
    """Precisions that the device computes in by itself; others are emulated, and slow."""
    yield "fp32"
    if has_native_bf16(device):
        yield "bf16"
    if device.type != "cpu":
        yield "fp16"


class _Trial:
    """Steps of a network on random pictures."""

    def __init__(self, network: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.network, self.device = network, device
        count = _trial_pictures(recipe, device)
        self.pictures = torch.randn(count, 3, *recipe.network.input_size, device=device)

    def seconds(self, ways: Iterable[Arithmetic], until: float) -> Times:
        """Measure ways in turn, the best step of each; one that is GIVE_UP times slower than the best is given up.

        Args:
            ways: What to measure, the default first.
            until: Time (of `time.monotonic`) at which it ends with what it has.
        """
        times: Times = {}
        tried = list(ways)
        for turn in range(TRIAL_STEPS):
            for way in list(tried):
                if times and time.monotonic() > until:
                    return times
                if not times:
                    self._step(way)  # what torch does once, it does here
                seconds = self._step(way)
                # the first turn of each way warms up
                times[way] = seconds if turn < 2 else min(times[way], seconds)
                told = turn > 0 or seconds > SLOW_STEP
                if told and times[way] > GIVE_UP * min(times.values()):
                    tried.remove(way)
        return {way: seconds for way, seconds in times.items() if seconds < float("inf")}

    def usual_seconds(self, way: Arithmetic) -> float:
        """Seconds that a step usually takes, the median of some after one that warms up."""
        self._step(way)
        return statistics.median(self._step(way) for _ in range(TRIAL_STEPS))

    def _step(self, way: Arithmetic) -> float:
        """Seconds of a forward and a backward pass; infinite where it is impossible."""
        form = torch.channels_last if way.channels_last else torch.contiguous_format
        (use_fast_gradients if way.fast_depthwise else use_plain_gradients)(self.network)
        self.network.to(memory_format=form)
        pictures = self.pictures.contiguous(memory_format=form)
        self._wait()
        began = time.perf_counter()
        try:
            with autocast(self.device, way.precision):
                outputs = self.network(pictures).float()
            outputs.logsumexp(1).mean().backward()
        except (RuntimeError, MemoryError) as error:
            if way.precision == "fp32" and not is_out_of_memory(error):
                raise
            return float("inf")
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        """Wait for what the device has been given to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
