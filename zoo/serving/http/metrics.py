"""Figures of the server in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from zoo.serving.runtime import Runtime


class Metrics:
    """Counts of requests, and the state of the engine when it is asked for."""

    def __init__(self, runtime: Runtime) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "hemazoo_http_requests", "Requests that were answered.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "hemazoo_http_request_seconds", "Seconds from request to answer.", ("route",), registry=self._registry
        )
        ProcessCollector(registry=self._registry)  # memory and processor time
        self._registry.register(_EngineCollector(runtime))

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures, in the text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """The engine's state, read at the time of the question."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """The figures."""
        status = self._runtime.status()
        for name, text, value in (
            ("hemazoo_waiting", "Pictures that wait for the engine.", status.waiting),
            ("hemazoo_slow_explanations", "Slow explanations under way.", status.slow),
            ("hemazoo_batch_size", "Mean number of pictures of recent batches.", status.batch_size),
            ("hemazoo_answer_seconds_median", "Median seconds from request to answer in the engine.", status.p50),
            ("hemazoo_answer_seconds_p95", "95th percentile of the same.", status.p95),
            ("hemazoo_pictures_per_second", "Pictures answered a second, lately.", status.images_per_second),
            ("hemazoo_loaded_models", "Models in memory.", len(self._runtime.loaded_models)),
            ("hemazoo_loaded_bytes", "Bytes of the models in memory.", self._runtime.loaded_bytes),
        ):
            yield GaugeMetricFamily(name, text, value)
        yield CounterMetricFamily("hemazoo_answered", "Pictures that the engine answered.", status.answered)
        yield CounterMetricFamily("hemazoo_engine_restarts", "Times that the engine's thread ended.", status.restarts)
