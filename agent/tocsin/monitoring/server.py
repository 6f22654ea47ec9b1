"""The HTTP server: paths to answers, in threads of their own.

Rules: whatever becomes of it, alarms go on. A port that is taken is told once and tried again. At most `MOST_AT_ONCE`
are answered at a time, others are hung up on; nobody may take longer than `TIMEOUT_S` to ask or to read. Only GET and
HEAD are known, so nothing can be changed here.
"""

import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tocsin.config import HttpSettings
from tocsin.monitoring.answers import Reply

log = logging.getLogger(__name__)

MOST_AT_ONCE = 8
TIMEOUT_S = 5.0
LOOK_S = 0.5  # between looks whether to stop
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0

Routes = Mapping[str, Callable[[], Reply]]


class Server:
    """Answers at an address from `start` to `stop`.

    Args:
        settings: where.
        routes: path → what answers it; called from any thread.
        timeout_s: longest wait for one who asks, or reads.
    """

    def __init__(self, settings: HttpSettings, routes: Routes, timeout_s: float = TIMEOUT_S) -> None:
        self._address, self._routes, self._timeout_s = (settings.listen, settings.port), routes, timeout_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begins to answer; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Takes no more requests, and lets go of the port."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        delay_s, told = FIRST_DELAY_S, False
        while not self._stopping.is_set():
            try:
                with _Listener(self._address, self._routes, self._timeout_s) as listener:
                    log.info("figures at http://%s:%d/metrics", listener.host, self._address[1])
                    while not self._stopping.is_set():
                        listener.handle_request()
            except OSError as error:
                if not told:
                    log.error(
                        "http: %s:%d cannot be listened at: %s; alarms go on", *self._address, error.strerror or error
                    )
                told = True
            self._stopping.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)


class _Listener(ThreadingHTTPServer):
    """The socket, and a thread for each that is answered."""

    timeout = LOOK_S
    daemon_threads = True

    def __init__(self, address: tuple[str, int], routes: Routes, timeout_s: float) -> None:
        self.routes, self.timeout_s = routes, timeout_s
        self._slots = threading.BoundedSemaphore(MOST_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.host = f"[{address[0]}]" if ":" in address[0] else address[0]
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the base class's question to the name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, where one is left."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The base class's, which lets go of its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One who hung up is nobody's concern."""
        log.debug("http: a request was not answered", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Listener

    def setup(self) -> None:
        """The base class's, with a time-out."""
        super().setup()
        self.connection.settimeout(self.server.timeout_s)

    def do_GET(self) -> None:
        self._answer(self._reply())

    def do_HEAD(self) -> None:
        self._answer(self._reply())

    def _reply(self) -> Reply:
        found = self.server.routes.get(self.path.partition("?")[0])
        if found is None:
            return _text(404, f"there are {', '.join(self.server.routes)}")
        try:
            return found()
        except Exception:  # alarms go on, whatever ails a figure
            log.exception("http: no answer to %s", self.path.partition("?")[0])
            return _text(500, "an error in the agent, see its log")

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def version_string(self) -> str:
        """What answers; not which Python."""
        return "tocsin"

    def log_message(self, format: str, *args: Any) -> None:
        """To the log, for who wants all of it."""
        log.debug("http: %r", format % args)


def _text(status: int, text: str) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", f"{text}\n".encode())
