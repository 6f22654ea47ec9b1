"""Samples on `data/<asset>`: the newest value of each channel, so often, for who plots them.

Rules: now or never, QoS 0: what is not sent is in the recording. A value that is not finite is left out. The thread of
an asset alone gives its samples.
"""

import time
from collections.abc import Callable

import numpy as np

from tocsin.alarms.normal import Normal
from tocsin.core.manifest import Manifest
from tocsin.delivery.wire import ChannelMeta, Data, DataMeta, number, rfc3339
from tocsin.records import Channel, SampleBlock


class DataStream:
    """Thins the samples of all assets.

    Args:
        interval_s: between two messages of an asset.
        say: called with asset and payload.
        now: monotonic seconds.
    """

    def __init__(
        self, interval_s: float, say: Callable[[str, Data], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s, self._say, self._now = interval_s, say, now
        self._newest: dict[str, dict[str, float]] = {}
        self._due_s: dict[str, float] = {}

    def take(self, stream: str, channels: tuple[Channel, ...], block: SampleBlock) -> None:
        """Samples of an asset, or of one of its groups.

        Args:
            stream: `<asset>` or `<asset>.<group>`.
            channels: columns of the block.
            block: at least one row.
        """
        asset = stream.partition(".")[0]
        newest = self._newest.setdefault(asset, {})
        for column, channel in enumerate(channels):
            values = block.values[:, column]
            last = values[-1] if np.isfinite(values[-1]) else next(iter(values[np.isfinite(values)][-1:]), None)
            found = None if last is None else number(float(last))
            if found is not None:
                newest[channel.name] = found
        now_s = self._now()
        if newest and now_s >= self._due_s.get(asset, 0.0):
            self._due_s[asset] = now_s + self._interval_s
            self._say(asset, Data.model_validate({"time": rfc3339(float(block.time_s[-1])), **newest}))
            newest.clear()


def meta_of(manifest: Manifest) -> DataMeta:
    """What a bundle knows of its channels."""
    normal = {channel.name: channel for channel in Normal.from_json(manifest.raw.get("quality")).channels}
    found = {}
    for channel in manifest.channels:
        seen = normal.get(channel.name)
        low, high = (None, None) if seen is None else (number(seen.low), number(seen.high))
        found[channel.name] = ChannelMeta(unit=channel.unit, low=low, high=high)
    return DataMeta(rate_hz=manifest.sample_rate_hz, channels=found)
