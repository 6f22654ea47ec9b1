"""`/metrics` as Prometheus reads it: the one file that imports prometheus-client, from the extra `metrics`.

Rule: the library's own registry of the process is not used: what is served is `METRICS` and nothing else.
"""

from collections.abc import Callable, Iterator

from tocsin.errors import ConfigError
from tocsin.monitoring.metrics import METRICS, Facts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def page(facts: Callable[[], Facts]) -> Callable[[], bytes]:
    """What makes a page of metrics.

    Args:
        facts: asked for each page.

    Returns:
        Gives a page, as `CONTENT_TYPE` says.

    Raises:
        ConfigError: the extra `metrics` is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - an extra
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415
        from prometheus_client.registry import Collector  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("http: /metrics needs the extra `metrics`: pip install '.[metrics]'") from error

    class OfFacts(Collector):
        """Makes the families anew, each time that it is asked."""

        def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
            now = facts()
            for metric in METRICS:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = kind(metric.name, metric.meaning, labels=metric.labels)
                for labels, figure in metric.lines(now):
                    family.add_metric(labels, figure)
                if family.samples:
                    yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(OfFacts())
    return lambda: generate_latest(registry)
