"""The HTTP server, asked over real sockets."""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tocsin.config import HttpSettings
from tocsin.errors import ConfigError
from tocsin.monitoring.answers import Reply, routes
from tocsin.monitoring.server import MOST_AT_ONCE, Server

GOOD = Reply(200, "text/plain", b"good\n")
Serve = Callable[..., int]


def fails() -> Reply:
    raise RuntimeError("password hunter2")


@pytest.fixture
def serve(unused_port: int, until: Callable[..., None], listens: Callable[[int], bool]) -> Iterator[Serve]:
    """Starts a server; gives its port when it listens."""
    made: list[Server] = []

    def start(paths: dict[str, Callable[[], Reply]], wait: bool = True) -> int:
        made.append(Server(HttpSettings(port=unused_port), paths, timeout_s=0.5))
        made[-1].start()
        if wait:
            until(lambda: listens(unused_port))
        return unused_port

    yield start
    for server in made:
        server.stop()


def test_a_path_is_answered_with_or_without_a_query(serve: Serve, ask: Callable[..., Any]) -> None:
    port = serve({"/good": lambda: GOOD})
    assert ask(port, "/good") == ask(port, "/good?x=1") == (200, "good\n")
    assert ask(port, "/good", "HEAD") == (200, "")
    assert ask(port, "/other") == (404, "there are /good\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(serve: Serve, ask: Callable[..., Any], method: str) -> None:
    assert ask(serve({"/good": lambda: GOOD}), "/good", method)[0] == 501


def test_an_answer_that_fails_says_nothing_of_why(
    serve: Serve, ask: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    port = serve({"/good": lambda: GOOD, "/bad": fails})
    assert ask(port, "/bad") == (500, "an error in the agent, see its log\n")
    assert "no answer to /bad" in caplog.text
    assert ask(port, "/good")[0] == 200


def test_it_does_not_tell_which_python_answers(serve: Serve) -> None:
    port = serve({"/good": lambda: GOOD})
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET /good HTTP/1.0\r\n\r\n")
        head = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"Server: tocsin\r\n" in head and b"Python" not in head


@pytest.mark.parametrize(
    "request_", [b"\x00\xff\x16\x03\r\n\r\n", b"GET\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n", b""]
)
def test_garbage_costs_nothing(serve: Serve, ask: Callable[..., Any], request_: bytes) -> None:
    port = serve({"/good": lambda: GOOD})
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(request_)
    assert ask(port, "/good")[0] == 200


def test_those_who_ask_and_wait_do_not_keep_others_out_for_ever(
    serve: Serve, ask: Callable[..., Any], until: Callable[..., None]
) -> None:
    port = serve({"/good": lambda: GOOD})

    def answered() -> bool:
        try:
            return ask(port, "/good")[0] == 200
        except OSError:  # hung up on
            return False

    before = threading.active_count()
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(3 * MOST_AT_ONCE)]
    assert threading.active_count() - before <= MOST_AT_ONCE
    until(answered)
    for client in clients:
        client.close()


def test_a_port_that_is_taken_is_told_once_and_taken_when_it_is_free(
    serve: Serve,
    ask: Callable[..., Any],
    unused_port: int,
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", unused_port)):
        serve({"/good": lambda: GOOD}, wait=False)
        until(lambda: "cannot be listened at" in caplog.text)
    until(lambda: "figures at" in caplog.text)
    assert ask(unused_port, "/good")[0] == 200
    assert caplog.text.count("cannot be listened at") == 1


def test_it_listens_on_ipv6_too(unused_port: int, until: Callable[..., None]) -> None:
    server = Server(HttpSettings(listen="::1", port=unused_port), {"/good": lambda: GOOD})
    server.start()

    def answers() -> bool:
        try:
            with socket.create_connection(("::1", unused_port), 5) as client:
                client.sendall(b"GET /good HTTP/1.0\r\n\r\n")
                return client.recv(100).startswith(b"HTTP/1.0 200")
        except ConnectionRefusedError:
            return False

    try:
        until(answers)
    finally:
        server.stop()


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"the extra `metrics`: pip install '.\[metrics\]'"):
        routes(lambda: None, dict)
