"""Whether an asset's settings go with its bundle, as far as that can be told before its sources are opened.

Rule: `tocsin run` refuses at its start what `tocsin config check` refuses, but for recordings, which may yet come.
"""

from tocsin.alarms.detector import AlarmRule
from tocsin.config import AgentSettings, AssetSettings, BrokerSettings, HttpSettings
from tocsin.core.groups import Group
from tocsin.core.manifest import Manifest
from tocsin.errors import ConfigError, DataError, SourceError
from tocsin.pipeline import columns_of, watch_of
from tocsin.sources import SourceSettings
from tocsin.sources.replay import ReplaySettings


def check_asset(place: str, asset: AssetSettings, manifest: Manifest) -> None:
    """Whether an asset's settings go with its bundle; recordings are not looked at.

    Args:
        place: of the asset in the settings, for messages.
        asset: its settings.
        manifest: of its bundle.

    Raises:
        BundleError: a part of the manifest that is needed here is damaged.
        ConfigError: names the key, and what is expected there.
    """
    groups = manifest.groups.groups
    try:
        asset.alarm.rule(AlarmRule.from_json(manifest.alarm))
        sources = asset.by_group(tuple(group.name for group in groups))
        watch_of(asset.id, manifest, asset.prior())
    except ConfigError as error:
        raise ConfigError(f"{place}.{error}") from error
    for group in groups:
        _check_source(f"{place}.{_key(asset, group)}", sources[group.name], group)


def warnings(settings: AgentSettings) -> tuple[str, ...]:
    """What should not stay as it is, though all would run."""
    brokers: dict[str, object] = {"mqtt": settings.mqtt}
    if settings.sparkplug is not None:
        brokers["sparkplug.broker"] = settings.sparkplug.broker
    for n, asset in enumerate(settings.assets):
        given = asset.sources if asset.source is None else {"": asset.source}
        for name, source in given.items():
            key = f"sources.{name}" if name else "source"
            brokers[f"assets[{n}].{key}.broker"] = getattr(source, "broker", None)
    bared = tuple(
        f"{place}: the password goes to {broker.host} in the clear, for all on the way to read: set {place}.tls"
        for place, broker in brokers.items()
        if isinstance(broker, BrokerSettings) and broker.bares_password
    )
    return bared if settings.http is None or settings.http.on_this_machine else (*bared, _open_to_all(settings.http))


def _open_to_all(http: HttpSettings) -> str:
    return (
        f"http.listen: {http.listen}: whoever reaches port {http.port} reads the figures of this agent, without a "
        "password: set it to 127.0.0.1, or let a firewall keep others out"
    )


def check_recordings(place: str, asset: AssetSettings, manifest: Manifest) -> None:
    """Whether the recordings that an asset plays are there, and have what its bundle needs; else as `check_asset`."""
    groups = manifest.groups.groups
    for name, source in asset.by_group(tuple(group.name for group in groups)).items():
        group = next(group for group in groups if group.name == name)
        if isinstance(source, ReplaySettings):
            try:
                source.make(group.channels).open()  # looks at the first lines alone
            except SourceError as error:
                raise ConfigError(f"{place}.{_key(asset, group)}.files: {error}") from error


def _key(asset: AssetSettings, group: Group) -> str:
    """Where a group's source stands."""
    return "source" if asset.source is not None else f"sources.{group.name}"


def _check_source(place: str, source: SourceSettings, group: Group) -> None:
    """Whether a source gives what a group of the bundle needs."""
    rate_hz, given = group.sample_rate_hz, source.given()
    stated_hz = None if isinstance(source, ReplaySettings) else source.rate_hz
    if stated_hz is not None and not 0.9 <= stated_hz / rate_hz <= 1.1:
        raise ConfigError(
            f"{place}.rate_hz: {stated_hz:g} is not the bundle's {rate_hz:g}: "
            "windows would be stretched; set the source to the bundle's rate, or train again"
        )
    if given is not None:
        try:
            columns_of(group, given, f"{place}.channels")
        except DataError as error:
            raise ConfigError(str(error)) from error
