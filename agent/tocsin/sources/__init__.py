"""Where samples come from: one protocol a file, all behind `Source`.

Rules: a source's module holds its settings and its source; it is imported only when a configuration names it, and
imports an optional library only in `open`. `type:` in the settings is looked up in `SOURCES`, then among the entry
points of the group `tocsin.sources`, so that another package can bring a source of its own.
"""

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from tocsin.records import Channel
from tocsin.settings import Seconds, Settings, given_twice
from tocsin.sources.metered import MeteredSource
from tocsin.sources.source import Source, SourceCounts

__all__ = ["SOURCES", "AnySource", "MeteredSource", "Source", "SourceCounts", "SourceSettings", "make_source"]

GROUP = "tocsin.sources"
SOURCES = {  # what `type` says → module and settings class
    "can": "tocsin.sources.can_bus:CanSettings",
    "iio": "tocsin.sources.iio:IioSettings",
    "modbus": "tocsin.sources.modbus:ModbusSettings",
    "mqtt": "tocsin.sources.mqtt:MqttSourceSettings",
    "opcua": "tocsin.sources.opcua:OpcuaSettings",
    "replay": "tocsin.sources.replay:ReplaySettings",
    "serial": "tocsin.sources.serial_port:SerialSettings",
    "synthetic": "tocsin.sources.synthetic:SyntheticSettings",
}


class SourceSettings(Settings):
    """What every source's settings have; a source derives its own, with `type` as a Literal."""

    steady: ClassVar[bool] = True  # samples come at an even rate, which is watched

    type: str
    rate_hz: float | None = Field(None, gt=0, description="samples a second; what differs clearly is told in health")
    startup: Literal["retry", "error", "ignore"] = Field(
        "retry",
        description="when it cannot be opened at the start: retry; error: the agent ends with exit code 5; "
        "ignore: the asset is left out until the next start",
    )
    timeout_s: Seconds = Field(3.0, gt=0, description="longest wait for one answer of the other side")

    @model_validator(mode="after")
    def _channels_have_names_of_their_own(self) -> Self:
        twice = given_twice(channel.name for channel in self.given() or ())
        if twice:
            raise ValueError(f"the channel {twice[0]!r} is given twice: give each a name of its own")
        return self

    def given(self) -> tuple[Channel, ...] | None:
        """The channels that it will give; None where only the other side knows."""
        return None

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The source, not opened yet.

        Args:
            wanted: channels of the asset's bundle.
        """
        raise NotImplementedError


class _ByType:
    """Reads a mapping into the settings class that its `type` names; the JSON Schema knows the built-in ones."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_read)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        choices = {name: settings_class(name).__pydantic_core_schema__ for name in SOURCES}
        return handler(core_schema.tagged_union_schema(choices, discriminator="type"))


AnySource = Annotated[SourceSettings, _ByType()]


def make_source(settings: SourceSettings, wanted: tuple[Channel, ...], rate_hz: float | None = None) -> MeteredSource:
    """The source that the settings describe, with its meters; not opened yet.

    Args:
        settings: of one source.
        wanted: channels of the asset's bundle.
        rate_hz: of the bundle, where the settings state none.
    """
    stated_hz = (settings.rate_hz or rate_hz) if settings.steady else None
    return MeteredSource(settings.make(wanted), f"source {settings.type}", stated_hz)


def settings_class(name: str) -> type[SourceSettings]:
    """The settings of a `type`.

    Raises:
        KeyError: nobody brings such a source.
        ImportError: its package is broken.
    """
    if name in SOURCES:
        module, _, attribute = SOURCES[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        point = _brought()[name]
        try:
            found = point.load()
        except AttributeError as error:
            raise ImportError(str(error)) from error
    if not (isinstance(found, type) and issubclass(found, SourceSettings)):
        raise ImportError(f"the entry point {name!r} of {GROUP} is no SourceSettings class")
    return found


def _brought() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _read(value: Any, info: ValidationInfo) -> SourceSettings:
    if isinstance(value, SourceSettings):
        return value
    if not isinstance(value, dict):
        raise PydanticKnownError("dict_type")
    name = value.get("type")
    if name is None:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'type'"})
    try:
        kind = settings_class(str(name))
    except KeyError:
        known = ", ".join(f"'{one}'" for one in sorted({*SOURCES, *_brought()}))
        wrong = {"discriminator": "'type'", "tag": str(name), "expected_tags": known}
        raise PydanticKnownError("union_tag_invalid", wrong) from None
    except ImportError as error:
        raise ValueError(f"the source {name!r} cannot be loaded: {error}") from error
    return kind.model_validate(value, context=info.context)
