"""What the service counts, for Prometheus."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_BATCHES = (1, 2, 4, 8, 16)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lmmvqa_requests", "Requests for a score, by HTTP status.", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "lmmvqa_request_seconds",
            "From the first byte of a request to the score.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.under_way = Gauge("lmmvqa_requests_under_way", "Requests for a score now.", registry=self.registry)
        self.batches = Histogram(
            "lmmvqa_batch_videos",
            "Videos that the language model gets at once.",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self.video_seconds = Counter("lmmvqa_video_seconds", "Length of the scored videos.", registry=self.registry)
        self.readers_lost = Gauge(
            "lmmvqa_readers_lost", "Reading processes that a video took down.", registry=self.registry
        )
        build = Gauge("lmmvqa_build", "1, with the version as a label.", ["version"], registry=self.registry)
        build.labels(version("lmmvqa")).set(1)
        ProcessCollector(registry=self.registry)

    def as_text(self) -> bytes:
        """In Prometheus' form."""
        return generate_latest(self.registry)
