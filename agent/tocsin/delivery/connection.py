"""One connection to the broker: settings → an MQTT session, with its events on a queue.

Rules: paho's callbacks do nothing but put on a `SimpleQueue` (a lock shared with `publish` would deadlock, and an
exception in a callback would kill the network thread). A connection is never reused: after a break a new one is made,
so paho holds no messages of its own. Certificates are always verified.
"""

import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tocsin.config import BrokerSettings, TlsSettings
from tocsin.errors import BrokerError, ConfigError

log = logging.getLogger(__name__)

Protocol = Literal["5", "3.1.1"]
CONNECT_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 1.0
_IN_FLIGHT = 100  # paho's own bound, above any window used here
_VERSIONS: Mapping[Protocol, MQTTProtocolVersion] = {
    "5": MQTTProtocolVersion.MQTTv5,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
}
_BROKERS_CERTIFICATE = (  # OpenSSL's codes
    ({10}, "the broker's certificate has expired: renew it there; is this device's clock right?"),
    ({9}, "the broker's certificate is not valid yet: is this device's clock right?"),
    ({62, 64}, "the broker's certificate is for another name: write `mqtt.host` as the certificate has it"),
    ({7, 18, 19, 20, 21}, "another authority signed the broker's certificate: `mqtt.tls.ca_file` has to be that one's"),
)
_OTHER_CERTIFICATE = "the broker's certificate is not to be trusted: see `mqtt.tls.ca_file`"
_ALERTS = {
    "CERTIFICATE_EXPIRED": "the broker says that this device's certificate has expired: renew `mqtt.tls.cert_file`",
    "CERTIFICATE_REVOKED": "the broker says that this device's certificate was revoked: enroll the device anew",
    "UNKNOWN_CA": "the broker does not know the authority of this device's certificate: `mqtt.tls.cert_file` has to be "
    "of the broker's own",
    "CERTIFICATE_REQUIRED": "the broker wants a certificate: give `mqtt.tls.cert_file` and `key_file`",
    "HANDSHAKE_FAILURE": "the broker refuses the handshake: does it want a certificate (`mqtt.tls.cert_file`)?",
    "BAD_CERTIFICATE": "the broker says that this device's certificate is bad: is `mqtt.tls.cert_file` for clients?",
    "UNSUPPORTED_CERTIFICATE": "the broker says that this device's certificate is not one for clients",
}
_WITH_WILL = 0x04  # "disconnect with will message"
_UNSUPPORTED = frozenset({0x84, 0x01})  # "unsupported protocol version" of MQTT 5 and of 3.1.1


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker's answer to a QoS 1 publish."""

    mid: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a subscription."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    response_topic: str | None = None
    correlation: bytes | None = None
    mid: int = 0


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker's answer to a subscription: why it refuses any of its filters; empty where it takes all."""

    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Opened:
    code: int
    reason: str
    receive_maximum: int


Event = Acknowledged | Received | Subscribed | Closed


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when the connection breaks."""

    topic: str
    payload: str | bytes
    retain: bool = True


class _UnsupportedError(BrokerError):
    """The broker does not speak that version of MQTT, or did not answer it."""


@dataclass(frozen=True)
class Access:
    """How to reach the broker: settings with their files read.

    Attributes:
        host: name or address.
        port: filled in.
        tls: None without TLS.
        username: or None.
        password: or None.
        protocols: to try, in order.
        keepalive_s: after which silence is a broken connection.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    username: str | None
    password: str | None
    protocols: tuple[Protocol, ...]
    keepalive_s: int

    @classmethod
    def read(cls, settings: BrokerSettings) -> "Access":
        """Reads certificates and password.

        Raises:
            ConfigError: a file is missing or not what it should be.
        """
        protocols: tuple[Protocol, ...] = ("5", "3.1.1") if settings.protocol == "auto" else (settings.protocol,)
        return cls(
            host=settings.host,
            port=settings.port_used,
            tls=None if settings.tls is None else _tls_context(settings.tls),
            username=settings.username,
            password=None if settings.password_file is None else _password(settings.password_file),
            protocols=protocols,
            keepalive_s=settings.keepalive_s,
        )

    def connect(
        self,
        client_id: str,
        put: Callable[[Event], object],
        will: Will | None = None,
        largest: int | None = None,
        session_s: int = 0,
    ) -> "Connection":
        """Connects, with the first protocol that the broker speaks.

        Args:
            client_id: the broker ends an older session of the same id.
            put: called with what happens on the connection, from its network thread; only to put it on a queue.
            will: published by the broker when the connection breaks.
            largest: bytes of a packet that the broker may send; only MQTT 5 can say so.
            session_s: seconds for which the broker keeps messages of subscriptions while there is no connection
                (with MQTT 3.1.1 for as long as it likes); each then has to be acknowledged. 0: it keeps none.

        Raises:
            BrokerError: unreachable, or it refuses this client.
        """
        for protocol in self.protocols[:-1]:
            try:
                return Connection(self, protocol, client_id, put, will, largest, session_s)
            except _UnsupportedError as error:
                log.debug("%s; trying the next", error)
        return Connection(self, self.protocols[-1], client_id, put, will, largest, session_s)


class Connection:
    """An open session; what happens on it is `put`, `Closed` the last.

    Attributes:
        protocol: spoken.
        window: how many QoS 1 messages the broker takes before it has answered.

    Raises:
        BrokerError: unreachable, or it refuses this client.
    """

    def __init__(
        self,
        access: Access,
        protocol: Protocol,
        client_id: str,
        put: Callable[[Event], object],
        will: Will | None,
        largest: int | None = None,
        session_s: int = 0,
    ) -> None:
        self.protocol, self._put, self._open = protocol, put, False
        self._answers: SimpleQueue[_Opened | Closed] = SimpleQueue()
        self._client = client = self._make(access, protocol, client_id, will, kept=session_s > 0)
        where = f"{access.host}:{access.port}"
        try:
            if protocol == "5":
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                if largest is not None:
                    properties.MaximumPacketSize = largest
                if session_s:
                    properties.SessionExpiryInterval = session_s
                client.connect(
                    access.host, access.port, access.keepalive_s, clean_start=not session_s, properties=properties
                )
            else:
                client.connect(access.host, access.port, access.keepalive_s)
        except (OSError, ValueError) as error:
            raise BrokerError(f"{where}: {_said(error)}: {_hint(error)}") from error
        client.loop_start()
        try:
            answer: _Opened | Closed = self._answers.get(timeout=CONNECT_TIMEOUT_S)
        except Empty:
            answer = Closed(f"no answer within {CONNECT_TIMEOUT_S:g} s")
        if isinstance(answer, Closed) or answer.code in _UNSUPPORTED:
            self._drop()
            refused = _refused_by(access) if isinstance(answer, Closed) else None
            if refused is not None:
                raise BrokerError(f"{where}: {refused}")
            raise _UnsupportedError(f"{where}: no connection with MQTT {protocol}: {answer.reason}")
        if answer.code:
            self._drop()
            raise BrokerError(f"{where}: refused: {answer.reason}: check user, password and certificate")
        self.window = answer.receive_maximum

    def _make(self, access: Access, protocol: Protocol, client_id: str, will: Will | None, kept: bool) -> Client:
        version = _VERSIONS[protocol]
        clean = None if protocol == "5" else not kept
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=kept,
        )
        client.suppress_exceptions = True
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(_IN_FLIGHT)
        if access.tls is not None:
            client.tls_set_context(access.tls)
        if access.username is not None:
            client.username_pw_set(access.username, access.password)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        client.on_subscribe = self._on_subscribe
        return client

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._open = not code.is_failure
        self._answers.put(_Opened(code.value, str(code), getattr(properties, "ReceiveMaximum", 65535)))

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        closed = Closed(str(code))
        self._answers.put(closed)
        if self._open:
            self._put(closed)

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._put(Acknowledged(mid, code.value, str(code)))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        found = message.properties  # of MQTT 5
        response, correlation = getattr(found, "ResponseTopic", None), getattr(found, "CorrelationData", None)
        body, mid = bytes(message.payload), message.mid
        self._put(Received(message.topic, body, message.qos, message.retain, response, correlation, mid))

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._put(Subscribed(tuple(str(code) for code in codes if code.is_failure)))

    def publish(
        self,
        topic: str,
        payload: bytes | str,
        qos: int,
        retain: bool,
        correlation: bytes | None = None,
    ) -> int | None:
        """Sends a message, an answer of MQTT 5 with its correlation data; its packet id, None: no connection."""
        properties = None
        if correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        info = self._client.publish(topic, payload, qos, retain, properties)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def subscribe(self, topics: list[str]) -> None:
        """Asks for the messages of these filters, QoS 1."""
        self._client.subscribe([(topic, 1) for topic in topics])

    def acknowledge(self, message: Received) -> None:
        """Tells the broker to forget a message that it keeps for this session."""
        self._client.ack(message.mid, message.qos)

    def close(self, with_will: bool = False) -> None:
        """Says good-bye and ends the network thread.

        Args:
            with_will: the broker publishes the will all the same, which only MQTT 5 can ask for.
        """
        code = ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL) if with_will and self.protocol == "5" else None
        self._client.disconnect(code)
        try:
            self._answers.get(timeout=_CLOSE_TIMEOUT_S)
        except Empty:
            log.debug("the broker did not close the connection")
        self._drop()

    def _drop(self) -> None:
        """Ends the network thread, whatever the broker does."""
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("already closed: %s", error)
        self._client.loop_stop()


def _hint(error: Exception) -> str:
    """What to do where there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return next((hint for codes, hint in _BROKERS_CERTIFICATE if error.verify_code in codes), _OTHER_CERTIFICATE)
    if isinstance(error, socket.gaierror):
        return "no name server knows it: is the name right, is there a network? Its address does, too"
    return "is the broker running, and `mqtt:` right?"


def _refused_by(access: Access) -> str | None:
    """Why a broker ends a connection right after the handshake: of TLS 1.3 its alert comes only then."""
    if access.tls is None:
        return None
    try:
        with (
            socket.create_connection((access.host, access.port), CONNECT_TIMEOUT_S) as plain,
            access.tls.wrap_socket(plain, server_hostname=access.host) as wrapped,
        ):
            wrapped.settimeout(CONNECT_TIMEOUT_S)
            wrapped.recv(1)
    except ssl.SSLError as error:
        said = f"{error.reason or error}".upper().replace(" ", "_")
        return next((text for alert, text in _ALERTS.items() if alert in said), f"TLS failed: {_said(error)}")
    except OSError as error:
        log.debug("no alert: %s", error)
    return None


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _tls_context(tls: TlsSettings) -> ssl.SSLContext:
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("mqtt.tls: cert_file and key_file belong together: give both, or neither")
    for key in ("ca_file", "cert_file", "key_file"):
        path: Path | None = getattr(tls, key)
        if path is not None and not path.is_file():
            raise ConfigError(f"mqtt.tls.{key}: {path} is no file: check the path, and that this user may read it")
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: "")  # never ask at a terminal
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mqtt.tls: {_said(error)}: expected PEM files, the key without a pass phrase") from error
    return context


def _password(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as handle:
            return handle.readline(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt.password_file: {path}: {_said(error)}: expected a text file to read") from error
