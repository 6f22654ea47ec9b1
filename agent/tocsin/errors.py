"""The errors a caller can meet, by whose fault they are.

Rules: foreign exceptions become one of these once, at the edge, with `raise … from`. A message says what was
expected, what came, and what to do next. `exit_code` is what the command line ends with.
"""

from typing import ClassVar


class TocsinError(Exception):
    """Anything Tocsin refuses or cannot do; the base of all below."""

    exit_code: ClassVar[int] = 1


class ConfigError(TocsinError):
    """The configuration is wrong: names the file, line, column and key."""

    exit_code = 3


class DataError(TocsinError):
    """The recorded data are wrong: names the file, line and column."""

    exit_code = 4


class SourceError(TocsinError):
    """A sensor, port or slave failed; worth trying again."""

    exit_code = 5


class BrokerError(TocsinError):
    """The MQTT broker refused or cannot be reached."""

    exit_code = 6


class BundleError(TocsinError):
    """A bundle is damaged, of an unknown format, or fails its own golden vectors."""

    exit_code = 7


class TrustError(TocsinError):
    """An update is not trusted: a signature, version or expiry is wrong, or a hash differs."""

    exit_code = 7


class GateError(TocsinError):
    """No candidate passed the quality gate."""

    exit_code = 9
