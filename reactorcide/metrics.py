"""The service's Prometheus metrics, in seconds and bytes."""

import threading
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_JOB_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_OTHER = "(other)"
"""Replaces unbounded names from clients: no queue can have this name."""
_MAX_QUEUES = 50
"""Queues with a label of their own: users may invent any number of names."""


class Metrics:
    """The metrics of one service, in a separate registry, so that one process may have several.

    Every label has a bounded number of values, whatever clients send.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        # The latest queues, with the statuses of their ended jobs.
        self._queues: OrderedDict[str, set[str]] = OrderedDict()
        self._queues_lock = threading.Lock()
        self._render_lock = threading.Lock()
        self._jobs_ended = Counter(
            "reactorcide_jobs_ended", "Jobs that ended.", ["queue", "status"], registry=self._registry
        )
        self._job_run_seconds = Histogram(
            "reactorcide_job_run_seconds",
            "From the start of a job's container to the job's end.",
            ["queue"],
            buckets=_JOB_SECONDS,
            registry=self._registry,
        )
        self._job_wait_seconds = Histogram(
            "reactorcide_job_wait_seconds",
            "From a job's submission to the start of its container.",
            ["queue"],
            buckets=_FAST_SECONDS + _JOB_SECONDS[5:],
            registry=self._registry,
        )
        self._requests = Counter(
            "reactorcide_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "reactorcide_http_request_seconds",
            "From a request's arrival to the start of its answer.",
            ["method", "route"],
            buckets=_FAST_SECONDS,
            registry=self._registry,
        )
        self._corndogs_seconds = Histogram(
            "reactorcide_corndogs_call_seconds",
            "Calls to Corndogs by how they ended.",
            ["call", "status"],
            buckets=_FAST_SECONDS,
            registry=self._registry,
        )

        self._sent = Counter(
            "reactorcide_outbox_sent",
            "Commit statuses and messages of webhooks that have arrived.",
            ["kind"],
            registry=self._registry,
        )
        self._not_sent = Counter(
            "reactorcide_outbox_failed",
            "Failed attempts to send one, by the status of the answer.",
            ["kind", "reason"],
            registry=self._registry,
        )

    def observe_sent(self, kind: str) -> None:
        """Count something of the outbox that has arrived."""
        self._sent.labels(kind).inc()

    def observe_not_sent(self, kind: str, reason: str) -> None:
        """Count a failed attempt to send something of the outbox."""
        self._not_sent.labels(kind, reason).inc()

    def observe_job_end(self, queue: str, status: str, run_s: float | None) -> None:
        """Count a job that ended; ``run_s`` is its running time if it was started."""
        with self._queue(queue) as statuses:
            statuses.add(status)
            self._jobs_ended.labels(queue, status).inc()
            if run_s is not None:
                self._job_run_seconds.labels(queue).observe(run_s)

    def observe_job_wait(self, queue: str, wait_s: float) -> None:
        """Count a job that was started."""
        with self._queue(queue):
            self._job_wait_seconds.labels(queue).observe(wait_s)

    @contextmanager
    def _queue(self, queue: str) -> Iterator[set[str]]:
        """Give ``queue`` a label, which may replace the queue used longest ago."""
        with self._queues_lock:
            statuses = self._queues.setdefault(queue, set())
            self._queues.move_to_end(queue)
            if len(self._queues) > _MAX_QUEUES:
                removed, removed_statuses = self._queues.popitem(last=False)
                for status in removed_statuses:
                    self._jobs_ended.remove(removed, status)
                for histogram in (self._job_run_seconds, self._job_wait_seconds):
                    # Older versions of the library raise an error if there is none.
                    with suppress(KeyError):
                        histogram.remove(removed)
            yield statuses

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the rule that matched, never the requested path."""
        method = method if method in _METHODS else _OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def observe_corndogs_call(self, call: str, status: str, seconds: float) -> None:
        """Count a call to Corndogs."""
        self._corndogs_seconds.labels(call, status).observe(seconds)

    def add_job_counts(self, counts: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        """Call ``counts`` for (queue, status, jobs) whenever the metrics are rendered."""
        self._registry.register(_JobCounts(counts))

    def add_owed_counts(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Call ``counts`` for what is owed, by kind, whenever the metrics are rendered."""
        self._registry.register(_OwedCounts(counts))

    def add_warm_counts(self, counts: Callable[[], tuple[int, int, int]]) -> None:
        """Call ``counts`` whenever the metrics are rendered.

        It returns how many warm containers wait, how many jobs got one, and how many a new container.
        """
        self._registry.register(_WarmCounts(counts))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        # One at a time: several at once would only take the processor from other requests.
        with self._render_lock:
            return generate_latest(self._registry)


class _OwedCounts(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[GaugeMetricFamily]:
        # As with ``_JobCounts``.
        return (self._owed(),)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        owed = self._owed()
        for kind, count in self._counts().items():
            owed.add_metric([kind], count)
        yield owed

    @staticmethod
    def _owed() -> GaugeMetricFamily:
        return GaugeMetricFamily("reactorcide_outbox_owed", "What is still to be sent.", labels=["kind"])


class _WarmCounts(Collector):
    def __init__(self, counts: Callable[[], tuple[int, int, int]]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        # As with ``_JobCounts``.
        return (self._waiting(), self._containers())

    def collect(self) -> Iterator[Metric]:
        waiting, containers = self._waiting(), self._containers()
        count, warm, new = self._counts()
        waiting.add_metric([], count)
        containers.add_metric(["warm"], warm)
        containers.add_metric(["new"], new)
        yield waiting
        yield containers

    @staticmethod
    def _waiting() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "reactorcide_warm_containers", "Containers that have started and wait for a job."
        )

    @staticmethod
    def _containers() -> CounterMetricFamily:
        return CounterMetricFamily(
            "reactorcide_containers",
            "Containers that jobs got: warm, which had started before, or new.",
            labels=["kind"],
        )


class _JobCounts(Collector):
    def __init__(self, counts: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[GaugeMetricFamily]:
        # Explicit, because otherwise registering would call ``collect`` before the database is open.
        return (self._jobs(), self._depth())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs, depth = self._jobs(), self._depth()
        counted = list(self._counts())
        total: Tally[str] = Tally()
        for queue, _, count in counted:
            total[queue] += count
        largest = {queue for queue, _ in total.most_common(_MAX_QUEUES)}
        counts: Tally[tuple[str, str]] = Tally()
        waiting: Tally[str] = Tally()
        for queue, status, count in counted:
            name = queue if queue in largest else _OTHER
            counts[name, status] += count
            if status in ("submitted", "queued", "submit_failed"):
                waiting[name] += count
        for (queue, status), count in counts.items():
            jobs.add_metric([queue, status], count)
        for queue, count in waiting.items():
            depth.add_metric([queue], count)
        yield jobs
        yield depth

    @staticmethod
    def _jobs() -> GaugeMetricFamily:
        return GaugeMetricFamily("reactorcide_jobs", "Jobs by queue and status.", labels=["queue", "status"])

    @staticmethod
    def _depth() -> GaugeMetricFamily:
        return GaugeMetricFamily("reactorcide_queue_depth", "Jobs that wait for a worker.", labels=["queue"])
