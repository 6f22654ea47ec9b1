"""Values of an OPC UA server, by subscription: the server tells what changes, with its own time stamps.

```
the asset's thread    open ─► starts the session's thread, waits until it is subscribed
                      read ─► takes what came, gives rows
the session's thread  one asyncio loop: connect, subscribe, put what comes on a queue, until told to stop
```
Rules: a status code other than Good or Uncertain makes the value NaN, marks it bad and is counted by its name; so does
what is no number. Between changes a value stands as long as the session is alive, and rows go on (`held`). Their
times are the source's stamps, not those of arrival, unless `time` says otherwise. A password is read from a file. With
`sign` or `sign_and_encrypt` the server must be the one whose certificate is given.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from pydantic import Field, model_validator

from tocsin.errors import SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.settings import ChannelSettings, FilePath, Seconds
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import EPOCH_S
from tocsin.sources.held import LATEST_S, HeldRows

log = logging.getLogger(__name__)

_MOST_WAITING = 100_000  # values between the session and the asset's thread
_GOODBYE_S = 1.0
_OVERFLOW = 0x480  # bits of a status code: the info type of a data value, and "overflow"
_SERVER_TIME = "i=2258"  # Server_ServerStatus_CurrentTime, which every server has


class OpcuaChannelSettings(ChannelSettings):
    """A channel: one variable of the server."""

    node: str = Field(min_length=3, description="its node id: ns=2;s=Pump.Pressure, nsu=http://plant/;i=1001")
    scale: float = Field(1.0, description="multiplies the value")
    offset: float = Field(0.0, description="added after that")


class OpcuaSettings(SourceSettings):
    """Values of an OPC UA server, by subscription."""

    type: Literal["opcua"]
    url: str = Field(pattern=r"^opc\.tcp://[^@\s]+$", description="opc.tcp://plc.example:4840/path")
    security: Literal["none", "sign", "sign_and_encrypt"] = Field("none", description="Basic256Sha256, or nothing")
    certificate: FilePath | None = Field(None, description="of this client, PEM or DER, with its application URI")
    private_key: FilePath | None = Field(None, description="its key, PEM without a pass phrase")
    server_certificate: FilePath | None = Field(None, description="the one that the server must have")
    username: str | None = Field(None, description="to log in with; anonymous when left out")
    password_file: FilePath | None = Field(None, description="file whose first line is the password")
    user_certificate: FilePath | None = Field(None, description="to log in with a certificate instead")
    user_private_key: FilePath | None = Field(None, description="its key, PEM")
    publishing: Seconds = Field(0.5, ge=0.01, le=60, description="how often the server tells what changed")
    sampling: Seconds | None = Field(None, ge=0, description="how often it looks; once a row when left out")
    time: Literal["source", "server", "arrival"] = Field("source", description="which clock stamps the values")
    rate_hz: float = Field(gt=0, le=1000, description="rows a second")
    hold: Seconds | None = Field(None, gt=0, description="how long a value stands; until it changes when left out")
    channels: tuple[OpcuaChannelSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _files_belong_together(self) -> "OpcuaSettings":
        if self.security != "none" and not (self.certificate and self.private_key and self.server_certificate):
            raise ValueError(f"security: {self.security} needs certificate, private_key and server_certificate")
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file belong together: give both, or neither")
        if (self.user_certificate is None) != (self.user_private_key is None):
            raise ValueError("user_certificate and user_private_key belong together: give both, or neither")
        if self.username is not None and self.user_certificate is not None:
            raise ValueError("username, user_certificate: expected one way to log in")
        return self

    def given(self) -> tuple[Channel, ...]:
        """As written."""
        return tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The session."""
        return OpcuaSource(self)


@dataclass(frozen=True, slots=True)
class _Value:
    """What the server told of a channel; `problem` names why the value is none; its queue had run over before it."""

    channel: int
    value: float
    time_s: float | None
    arrived_s: float
    problem: str | None
    others_lost: bool


@dataclass(frozen=True, slots=True)
class _ServerTime:
    time_s: float
    arrived_s: float


@dataclass(frozen=True, slots=True)
class _Subscribed:
    pass


@dataclass(frozen=True, slots=True)
class _Ended:
    reason: str


_Event = _Value | _ServerTime | _Subscribed | _Ended


class OpcuaSource:
    """A session with an OPC UA server.

    Args:
        settings: of the source.
    """

    def __init__(self, settings: OpcuaSettings) -> None:
        self.channels, self.ended, self.counts = settings.given(), False, SourceCounts()
        self._settings = settings
        self._session: _Session | None = None
        hold = math.inf if settings.hold is None else settings.hold
        wait_s = settings.publishing + min(settings.publishing, 0.2)
        self._rows = HeldRows(len(self.channels), settings.rate_hz, self.counts, hold, wait_s, on_change=True)

    def open(self) -> None:
        """Connects, logs in and subscribes."""
        self.close()
        try:
            import asyncua  # noqa: F401, PLC0415 - here, as it takes a while, which is not the server's
        except ImportError as error:
            raise SourceError("OPC UA needs the extra `opcua`: pip install '.[opcua]'") from error
        self._rows.forget()
        self._session = session = _Session(self._settings)
        session.start()
        longest_s = self._settings.timeout_s + _GOODBYE_S
        try:
            while not isinstance(event := session.events.get(timeout=longest_s), _Subscribed):
                self._take(event)
        except Empty as error:
            self.close()
            raise SourceError(
                f"OPC UA server {self._settings.url}: no answer within {self._settings.timeout_s:g} s"
            ) from error
        except SourceError:
            self.close()
            raise

    def read(self, timeout_s: float) -> SampleBlock:
        """The rows that are complete, by what the server told."""
        session = self._session
        if session is None:
            raise SourceError(f"OPC UA server {self._settings.url} is not connected")
        try:
            self._take(session.events.get(timeout=min(timeout_s, 1.0 / self._settings.rate_hz)))
            for _ in range(_MOST_WAITING):
                self._take(session.events.get_nowait())
        except Empty:
            pass
        self.counts.count_bad("too many at once", session.take_dropped())
        return self._rows.block(time.monotonic())

    def _take(self, event: _Event) -> None:
        if isinstance(event, _Ended):
            raise SourceError(f"OPC UA server {self._settings.url}: {event.reason}")
        if isinstance(event, _ServerTime) and self._settings.time != "arrival":
            self._rows.clock_shows(event.time_s, event.arrived_s)
        if isinstance(event, _Value):
            if event.problem is not None:
                self.counts.count_bad(event.problem)
            self.counts.lost += event.others_lost
            channel = self._settings.channels[event.channel]
            time_s = time.time() if event.time_s is None else event.time_s
            self._rows.put(time_s, event.channel, event.value * channel.scale + channel.offset, event.arrived_s)

    def close(self) -> None:
        """Ends the session and its thread."""
        if self._session is not None:
            self._session.stop()
            self._session = None


class _Session:
    """One session, in a thread of its own; what happens is put on `events`, `_Ended` the last."""

    def __init__(self, settings: OpcuaSettings) -> None:
        self._settings = settings
        self.events: SimpleQueue[_Event] = SimpleQueue()
        self._dropped = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Future[str] | None = None
        self._stopped = False
        self._channels: dict[Any, list[int]] = {}  # of a node
        self._thread = threading.Thread(target=self._run, name="opcua", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        loop, ending = self._loop, self._ending
        if loop is not None and ending is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, ending, "closed")
        self._thread.join(self._settings.timeout_s + 2 * _GOODBYE_S)

    def take_dropped(self) -> int:
        """Values dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _run(self) -> None:
        try:
            reason = asyncio.run(self._serve())
        except SourceError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no answer within {self._settings.timeout_s:g} s: is it running, and the address right?"
        except OSError as error:
            reason = f"{error.strerror or error}: is it running, and the address right?"
        except Exception as error:  # whatever a server makes the library raise ends this session only
            log.debug("OPC UA session", exc_info=True)
            reason = f"{type(error).__name__}: {error}"
        self.events.put(_Ended(reason))

    async def _serve(self) -> str:
        """Until told to stop, or the session is lost; why."""
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        if self._stopped:
            return "closed"
        client = None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                client = await _connect(self._settings)
                client.connection_lost_callback = self._lost
                server_s = _epoch(await client.get_node(_SERVER_TIME).read_value())
                if server_s is not None:
                    self.events.put(_ServerTime(server_s, time.monotonic()))
                await self._subscribe(client)
                self.events.put(_Subscribed())
            return await self._ending
        finally:
            if client is not None:
                with contextlib.suppress(Exception):  # it may be gone
                    async with asyncio.timeout(_GOODBYE_S):
                        await client.disconnect()

    async def _lost(self, error: Exception) -> None:
        assert self._ending is not None
        _settle(self._ending, str(error) or type(error).__name__)

    async def _subscribe(self, client: Any) -> None:
        settings = self._settings
        nodes = [await _node(client, channel.node) for channel in settings.channels]
        sampling_ms = 1e3 * (1.0 / settings.rate_hz if settings.sampling is None else settings.sampling)
        queue = max(2, math.ceil(2e3 * settings.publishing / max(sampling_ms, 1.0)))
        subscription = await client.create_subscription(1e3 * settings.publishing, self)
        self._channels = {node.nodeid: [index for index, other in enumerate(nodes) if other == node] for node in nodes}
        asked = list({node.nodeid: node for node in nodes}.values())
        answers = await subscription.subscribe_data_change(asked, queuesize=queue, sampling_interval=sampling_ms)
        for node, answer in zip(asked, answers, strict=True):
            if not isinstance(answer, int):
                raise SourceError(f"node {node.nodeid.to_string()}: {answer.name}: look for it with an OPC UA browser")

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        """Called by the library."""
        if self.events.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return
        told = data.monitored_item.Value
        number, problem = _number(value, told.StatusCode)
        stamps = {"source": told.SourceTimestamp or told.ServerTimestamp, "server": told.ServerTimestamp}
        time_s, now_s = _epoch(stamps.get(self._settings.time)), time.monotonic()
        overflow = told.StatusCode is not None and told.StatusCode.value & _OVERFLOW == _OVERFLOW
        for index in self._channels.get(node.nodeid, ()):
            self.events.put(_Value(index, number, time_s, now_s, problem, overflow))

    def status_change_notification(self, status: Any) -> None:
        """Called by the library: the subscription ends."""
        assert self._ending is not None
        _settle(self._ending, f"the subscription ended: {getattr(status.Status, 'name', status)}")


def _settle(future: "asyncio.Future[str]", reason: str) -> None:
    if not future.done():
        future.set_result(reason)


async def _connect(settings: OpcuaSettings) -> Any:
    """An activated session."""
    from asyncua import Client, ua  # noqa: PLC0415 - only where OPC UA is used
    from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256  # noqa: PLC0415

    for part in ("client", "common", "crypto"):
        logging.getLogger(f"asyncua.{part}").setLevel(logging.CRITICAL)  # what matters is told by us, once
    client = Client(settings.url, timeout=settings.timeout_s, watchdog_intervall=1.0)
    client.name = client.description = "Tocsin"
    if settings.security != "none":
        mode = ua.MessageSecurityMode.Sign if settings.security == "sign" else ua.MessageSecurityMode.SignAndEncrypt
        client.application_uri = await _application_uri(settings.certificate) or client.application_uri
        await client.set_security(
            SecurityPolicyBasic256Sha256,
            str(settings.certificate),
            str(settings.private_key),
            server_certificate=str(settings.server_certificate),
            mode=mode,
        )
    if settings.username is not None and settings.password_file is not None:
        client.set_user(settings.username)
        client.set_password(_first_line(settings.password_file))
    if settings.user_certificate is not None and settings.user_private_key is not None:
        await client.load_client_certificate(str(settings.user_certificate))
        await client.load_private_key(settings.user_private_key)
    await client.connect()
    return client


async def _application_uri(file: Path | None) -> str | None:
    """The URI that a client certificate stands for; servers compare."""
    from asyncua.crypto.uacrypto import load_certificate  # noqa: PLC0415 - loaded by now
    from cryptography import x509  # noqa: PLC0415 - comes with asyncua

    certificate = await load_certificate(str(file))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), None)


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as handle:
            return handle.readline(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"password_file: {file}: {error}: expected a text file to read") from error


async def _node(client: Any, text: str) -> Any:
    """A node by its id; a namespace by its URI is looked up, as its number may change when the server starts."""
    from asyncua import ua  # noqa: PLC0415 - loaded by now

    try:
        node_id = ua.NodeId.from_string(text)
    except ua.UaError as error:
        raise SourceError(f"node {text!r}: expected a node id such as ns=2;s=Pump.Pressure") from error
    uri = getattr(node_id, "NamespaceUri", None)
    if uri:
        try:
            index = await client.get_namespace_index(uri)
        except ValueError as error:
            raise SourceError(f"node {text!r}: the server has no namespace {uri}") from error
        node_id = ua.NodeId(node_id.Identifier, index, node_id.NodeIdType)
    return client.get_node(node_id)


def _number(value: Any, status: Any) -> tuple[float, str | None]:
    """The value, and what is wrong with it: NaN where the status is bad, or it is no finite number."""
    if status is not None and status.is_bad():
        return math.nan, status.name
    if isinstance(value, bool | int | float):
        number = float(value)
        if math.isfinite(number):
            return number, None
    return math.nan, "no number"


def _epoch(moment: Any) -> float | None:
    """Epoch seconds; None where there is no time, or a clock that was never set."""
    if not isinstance(moment, datetime):
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if EPOCH_S <= seconds <= LATEST_S else None
