"""Prometheus metrics: of requests, of the queue, and every counter of the scorer."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lmfusion import _core
from lmfusion.scorer import LMFusionScorer
from lmfusion.service.admission import Admission
from lmfusion.service.body import Bodies

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Of one service."""

    def __init__(self, scorer: LMFusionScorer, admission: Admission, bodies: Bodies) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_State(scorer, admission, bodies))
        self._requests = Counter("lmfusion_http_requests", "answers", ["path", "status"],
                                 registry=self.registry)
        self._seconds = Histogram("lmfusion_http_request_seconds",
                                  "from the first header to the answer", ["path"],
                                  buckets=SECONDS, registry=self.registry)
        self._queue_seconds = Histogram("lmfusion_http_queue_seconds",
                                        "that calls waited for a place in the scorer",
                                        buckets=SECONDS, registry=self.registry)

    def answered(self, path: str, status: int, seconds: float, waited: float | None) -> None:
        """Counts one request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        if waited is not None:
            self._queue_seconds.observe(waited)

    def page(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self.registry)


class _State(Collector):
    """What is read when somebody looks."""

    def __init__(self, scorer: LMFusionScorer, admission: Admission, bodies: Bodies) -> None:
        self._scorer, self._admission, self._bodies = scorer, admission, bodies

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("lmfusion_running_calls", "calls in the scorer",
                                self._admission.running)
        yield GaugeMetricFamily("lmfusion_waiting_calls", "calls that wait for a place",
                                self._admission.waiting)
        yield GaugeMetricFamily("lmfusion_held_body_bytes", "bytes of bodies in memory",
                                self._bodies.held_bytes)
        values = self._scorer.stats().to_dict()
        for name, resets, _, what in _core.stats_fields():
            family = CounterMetricFamily if resets else GaugeMetricFamily
            yield family(f"lmfusion_{name}", what, float(values[name]))
