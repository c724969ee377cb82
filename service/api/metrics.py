"""`GET /metrics`: what this process counted itself, and what the database and the broker know at this moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from foretune.errors import Unavailable
from service.api.parts import Parts
from service.api.strict import StrictRoute
from service.usecases import metrics
from service.usecases.metrics import Snapshot

router = APIRouter(tags=["service"], route_class=StrictRoute)

REQUESTS = Histogram(
    "foretune_http_request_seconds",
    "Time until the answer began, in seconds.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0),
)
STREAMS = Gauge("foretune_streams", "Event streams that are open.")


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"example": "foretune_database_up 1.0\n"}},
        }
    },
)
async def read_metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    parts: Parts = request.app.state.parts
    return Response(await parts.in_thread(_render, parts), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _render(parts: Parts) -> bytes:
    try:
        with parts.database.transaction() as tx:
            found: Snapshot | None = metrics.snapshot(tx, parts.bus)
    except Unavailable:
        # What this process counted is worth most when the database is away.
        found = None
    service = CollectorRegistry()
    service.register(_Shown(found))
    return generate_latest(REGISTRY) + generate_latest(service)


class _Shown(Collector):
    """A snapshot as Prometheus wants it."""

    def __init__(self, found: Snapshot | None) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        found = self._found
        yield _gauge("foretune_database_up", "1 when the database answered this scrape.", 0 if found is None else 1)
        if found is None:
            return
        yield _gauges("foretune_experiments", "Experiments by state.", "state", found.experiments)
        yield _gauges("foretune_open_trials", "Trials of unfinished experiments, by state.", "state", found.open_trials)
        yield _gauges("foretune_workers", "Workers seen lately, by kind.", "kind", found.workers)
        yield _gauges("foretune_queue_messages", "Messages that wait, by queue.", "queue", found.queues)
        for name, help_text, value in (
            ("foretune_trials_created", "Trials ever created, of experiments that exist.", found.trials_created),
            ("foretune_trials_finished", "Trials that ended, of experiments that exist.", found.trials_finished),
            ("foretune_epochs", "Epochs measured, of experiments that exist.", found.epochs),
        ):
            yield CounterMetricFamily(name, help_text, value=value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
