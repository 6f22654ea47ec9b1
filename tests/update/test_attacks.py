"""What an attacker, a broken server or a broken disk may do to an update; each is refused by name, and nothing changes.

The attacks are those of the specification of The Update Framework, section 1.5.2, and what the framework leaves open.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, TargetFile

from tocsin.core.bundle import load_bundle
from tocsin.errors import BundleError, TrustError
from tocsin.update.fetch import Fetcher, FetchError, download
from tocsin.update.smoke import smoke
from tocsin_fleet.release.keys import Keys
from tocsin_fleet.release.release import Release

DAMAGES = int(os.environ.get("CHAOS_MODELS") or 6)


def newest(folder: Path, role: str) -> Path:
    if role == "timestamp":
        return folder / "metadata/timestamp.json"
    return max((folder / "metadata").glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))


def other_keys(release: Release, folder: Path) -> Release:
    """The same repository in the hands of somebody with keys of their own."""
    made = Release(folder / "repository", Keys([folder / "keys"], lambda: "mallory's own"))
    made.init()
    return made


# ── the framework's attacks ──────────────────────────────────────────────────────────────────────────────────────


def test_arbitrary_software_in_place_of_what_was_signed(device: Any, offer: Callable[..., Any], release: Any) -> None:
    bundle = offer()
    (target,) = (release.folder / "targets/models/pump").glob("*.tocsin")
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    assert device.run() == "rejected" and "is not the file that was signed" in device.reason
    assert device.slots.current() == "" and bundle.digest not in device.slots.installed()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "models", "rollout", "root"])
def test_metadata_signed_by_other_keys(
    role: str, device: Any, offer: Callable[..., Any], release: Any, tmp_path: Path
) -> None:
    offer()
    forged = other_keys(release, tmp_path / "mallory")
    mine, theirs = newest(release.folder, role), newest(forged.folder, role)
    if role == "root":
        shutil.copy(theirs, release.folder / "metadata/2.root.json")
    else:
        metadata = Metadata.from_file(str(theirs))
        metadata.signed.version = Metadata.from_file(str(mine)).signed.version
        for signer in forged._keys.signers(forged._delegator(role).get_delegated_role(role).keyids):
            metadata.sign(signer)
        metadata.to_file(str(mine))
    with pytest.raises(TrustError, match="refused"):
        device.run()
    assert device.slots.current() == ""


def test_a_root_that_one_key_alone_wants_to_change(device: Any, release: Any, offer: Callable[..., Any]) -> None:
    offer()
    metadata = Metadata.from_file(str(newest(release.folder, "root")))
    metadata.signed.version += 1
    metadata.signatures.clear()
    (one,) = list(release._keys.signers(metadata.signed.roles["root"].keyids))[:1]
    metadata.sign(one)
    metadata.to_file(str(release.folder / "metadata/2.root.json"))
    with pytest.raises(TrustError, match="not signed by enough"):
        device.run()


def test_roll_back_to_older_metadata(device: Any, offer: Callable[..., Any], release: Any, tmp_path: Path) -> None:
    offer("pump-2")
    shutil.copytree(release.folder, tmp_path / "old")
    assert device.run() == "succeeded"
    offer("pump-3", rollout="r2")
    assert device.run() == "succeeded"
    current = device.slots.current()
    shutil.rmtree(release.folder)
    (tmp_path / "old").rename(release.folder)
    with pytest.raises(TrustError, match="roll-back attack"):
        device.run()
    assert device.slots.current() == current


def test_old_metadata_after_those_of_this_device_were_lost(
    device: Any, offer: Callable[..., Any], release: Any, tmp_path: Path
) -> None:
    """The framework alone takes them: its own files are all that it remembers. Our floor does not."""
    offer("pump-2")
    shutil.copytree(release.folder, tmp_path / "old")
    assert device.run() == "succeeded"
    offer("pump-3", rollout="r2")
    assert device.run() == "succeeded"
    current = device.slots.current()
    for path in (device.folder / "update/metadata").glob("*.json"):
        path.write_bytes(b"")
    shutil.rmtree(release.folder)
    (tmp_path / "old").rename(release.folder)
    with pytest.raises(TrustError, match="release 1 is older than release 2"):
        device.run()
    assert device.slots.current() == current


@pytest.mark.parametrize("clock", ["right", "in 1970"])
def test_freeze_at_metadata_that_expired(clock: str, device: Any, offer: Callable[..., Any], release: Any) -> None:
    assert device.run() == "none"
    device.now_s = time.time() + 40 * 86_400
    with pytest.raises(TrustError, match="freeze attack"):
        device.run()
    if clock == "in 1970":
        device.now_s = 0.0
        with pytest.raises(TrustError, match="freeze attack"):
            device.run()
    Release(release.folder, release._keys, lambda: datetime.now(UTC) + timedelta(days=40)).sign(everything=True)
    assert device.run() == "none"


def test_mix_and_match_of_two_states(device: Any, offer: Callable[..., Any], release: Any) -> None:
    offer()
    before = newest(release.folder, "models").read_bytes()
    offer("pump-3", rollout="r2")
    newest(release.folder, "models").write_bytes(before)
    with pytest.raises(TrustError, match="refused"):
        device.run()


@pytest.mark.parametrize("name", ["metadata/timestamp.json", "target"])
def test_endless_data(name: str, device: Any, offer: Callable[..., Any], release: Any) -> None:
    offer()
    path = next((release.folder / "targets/models/pump").glob("*")) if name == "target" else release.folder / name
    with path.open("ab") as file:
        file.truncate(1 << 30)
    if name == "target":
        assert device.run() == "rejected" and "longer than was signed" in device.reason
    else:
        with pytest.raises(TrustError, match="endless data"):
            device.run()
    there = sum(p.stat().st_size for p in device.folder.rglob("*") if p.is_file() and not p.is_symlink())
    assert there < 1 << 20, "the disk is bounded"


def test_the_key_of_roll_outs_makes_no_bundle(device: Any, offer: Callable[..., Any], release: Any) -> None:
    offer()
    content = b"evil"
    path = "models/pump/evil.tocsin"
    target = TargetFile.from_data(path, content, ["sha256"])
    target.unrecognized_fields["custom"] = {"release_counter": 99, "version": "9"}
    release._lay_down(target, content)
    metadata = release._open("rollout")
    metadata.signed.targets[path] = target
    wish = json.dumps({"format": 1, "rollout": "evil", "target": path, "share": 10_000}).encode()
    assign = TargetFile.from_data("assign/pump.json", wish, ["sha256"])
    release._lay_down(assign, wish)
    metadata.signed.targets["assign/pump.json"] = assign
    release._store("rollout", metadata)
    release._publish()
    with pytest.raises(TrustError, match="nobody signed a bundle of that name"):
        device.run()


@pytest.mark.parametrize("wish", [b"", b"[]", b'{"rollout": "../x", "target": "models/pump/a.tocsin"}',
                                  b'{"rollout": "r", "target": "models/pump/../../x.tocsin"}',
                                  b'{"rollout": "r", "target": "assign/pump.json"}'])  # fmt: skip
def test_an_assignment_that_is_none(wish: bytes, device: Any, offer: Callable[..., Any], release: Any) -> None:
    offer()
    metadata = release._open("rollout")
    target = TargetFile.from_data("assign/pump.json", wish or b" ", ["sha256"])
    release._lay_down(target, wish or b" ")
    metadata.signed.targets["assign/pump.json"] = target
    release._store("rollout", metadata)
    release._publish()
    with pytest.raises(TrustError, match="the assignment cannot be read"):
        device.run()


# ── servers and links ────────────────────────────────────────────────────────────────────────────────────────────


class Server(ThreadingHTTPServer):
    """A web server with a fault."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.fault, self.asked, self.sent = folder, "", list[tuple[str, str]](), 0
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        reach, fault = self.headers.get("Range", ""), self.server.fault
        self.server.asked.append((self.path, reach))
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content, of_target = path.read_bytes(), self.path.startswith("/targets/models")
        if of_target and fault in ("500", "302", "404"):
            self.send_response(int(fault))
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if of_target and fault == "html":
            content = b"<html>log in to the hotel's network</html>"
        offset = int(reach[6:-1]) if reach and fault != "no ranges" else 0
        self.send_response(206 if offset else 200)
        self.send_header("Content-Length", str(len(content) - offset))
        self.end_headers()
        if of_target and fault == "cut":
            self.wfile.write(content[offset : offset + 5000])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        elif of_target and fault == "slow":
            for byte in content[offset:]:
                self.wfile.write(bytes((byte,)))
                time.sleep(0.1)
        else:
            self.wfile.write(content[offset:])
            self.server.sent += len(content) - offset


@pytest.fixture
def server(release: Any, device: Any) -> Iterator[Server]:
    made = Server(release.folder)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    device.policy = type(device.policy)(made.url, device.policy.trusted_root, shadow_windows=10, trial_windows=10)
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize("ranges", ["", "no ranges"])
def test_a_download_that_is_cut_goes_on_where_it_was(
    ranges: str, device: Any, offer: Callable[..., Any], server: Server
) -> None:
    bundle = offer()
    server.fault = "cut"
    assert device.run(times=1) == "downloading" and "5000 of" in device.reason
    assert device.run(times=1) == "downloading" and "10000 of" in device.reason
    server.fault = ranges
    assert device.run() == "succeeded" and device.slots.current() == bundle.digest
    offsets = [reach for path, reach in server.asked if path.startswith("/targets/models")]
    assert offsets[:3] == ["", "bytes=5000-", "bytes=10000-"]


@pytest.mark.parametrize(
    ("fault", "end", "says"),
    [("500", "downloading", "the server says 500"), ("302", "downloading", "the server says 302"),
     ("404", "downloading", "the server says 404"), ("html", "downloading", "42 of"),
     ("slow", "downloading", "bytes a second")],
)  # fmt: skip
def test_a_server_that_gives_something_else_leaves_the_old_model_and_is_asked_again(
    fault: str, end: str, says: str, device: Any, offer: Callable[..., Any], server: Server
) -> None:
    offer()
    server.fault = fault
    device.fetcher = Fetcher(timeout_s=2, grace_s=1.0)
    assert device.run(times=1) == end and says in device.reason
    assert device.slots.current() == ""
    server.fault, device.fetcher = "", None
    if fault == "html":
        assert device.run() == "rejected" and "is not the file that was signed" in device.reason
    else:
        assert device.run() == "succeeded"


def test_nobody_at_home(device: Any, offer: Callable[..., Any], unused_port: int) -> None:
    offer()
    device.policy = type(device.policy)(f"http://127.0.0.1:{unused_port}", device.policy.trusted_root)
    with pytest.raises(FetchError, match="cannot be had"):
        device.run()


def test_a_look_that_finds_nothing_new_costs_little(device: Any, offer: Callable[..., Any], server: Server) -> None:
    offer()
    assert device.run() == "succeeded"
    server.asked.clear()
    server.sent = 0
    device.fetcher = Fetcher()
    assert device.run() == "succeeded"
    assert [path for path, _ in server.asked] == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    print(f"nothing new: {device.fetcher.bytes_read} bytes of files")
    assert device.fetcher.bytes_read < 2000


def test_a_full_disk_refuses_a_download_and_keeps_what_runs(device: Any, offer: Callable[..., Any]) -> None:
    offer()
    device.policy = type(device.policy)(device.policy.repository, device.policy.trusted_root, keep_free_mb=1e9)
    assert device.run(times=1) == "downloading" and "no room" in device.reason


def test_a_part_that_is_longer_than_the_file_or_damaged_begins_anew(tmp_path: Path) -> None:
    import hashlib

    content = random.Random(1).randbytes(100_000)
    (tmp_path / "file").write_bytes(content)
    digest, part = hashlib.sha256(content).hexdigest(), tmp_path / "part"
    part.write_bytes(b"x" * 200_000)
    download(Fetcher(), str(tmp_path / "file"), part, len(content), digest)
    assert part.read_bytes() == content
    part.write_bytes(b"x" * 5000)
    with pytest.raises(TrustError, match="is not the file that was signed"):
        download(Fetcher(), str(tmp_path / "file"), part, len(content), digest)
    download(Fetcher(), str(tmp_path / "file"), part, len(content), digest)
    assert part.read_bytes() == content


def test_the_conformance_suites_protocol_is_spoken(
    device: Any, offer: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    """theupdateframework/tuf-conformance drives any client so; the suite itself is not on the package index."""
    bundle = offer()

    def client(*words: object) -> int:
        script = Path(__file__).parents[1] / "conformance/tuf_client.py"
        command = [sys.executable, str(script), "--metadata-dir", str(tmp_path / "md"), *map(str, words)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    urls = ("--metadata-url", f"{server.url}/metadata")
    target = ("--target-dir", tmp_path / "got", "--target-base-url", f"{server.url}/targets")
    assert client("init", device.folder / "root.json") == 0
    assert client(*urls, "refresh") == 0
    assert client(*urls, "--target-name", "models/pump/pump-2.tocsin", *target, "download") == 0
    (got,) = (tmp_path / "got").iterdir()
    assert load_bundle(got).digest == bundle.digest
    assert client(*urls, "--target-name", "models/pump/none.tocsin", *target, "download") == 1
    (server.folder / "metadata/timestamp.json").write_text("{}")
    assert client(*urls, "refresh") == 1


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(3600)
def test_a_damaged_model_never_passes_and_never_takes_the_updater_with_it(tmp_path: Path, bundle_of: Any) -> None:
    """Signed, with hashes that are right: only running it shows what it is."""
    dice, crashed, refused, alike = random.Random(8), 0, 0, 0
    for n in range(DAMAGES):

        def harm(name: str, content: bytes) -> bytes:
            data = bytearray(content)
            for _ in range(dice.choice((1, 1, 8, 64))):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            return bytes(data)

        try:
            path = bundle_of(tmp_path / f"{n}.tocsin", harm=harm)
        except BundleError:
            refused += 1
            continue
        try:
            found = smoke(path, wall_s=60)
        except BundleError as error:
            crashed += "crashed" in str(error)
            refused += "crashed" not in str(error)
        else:
            if found["passed"]:
                alike += 1
                assert load_bundle(path).self_test().passed
            else:
                refused += 1
        path.unlink()
    print(
        f"{DAMAGES} damaged models: {refused} refused, {crashed} crashed in their own process, {alike} score as before"
    )
    assert refused + crashed + alike == DAMAGES


@pytest.mark.parametrize("fault", ["endless", "memory"])
def test_what_never_ends_or_eats_all_memory_is_stopped(
    fault: str, tmp_path: Path, bundle_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    body = {"endless": "import time; time.sleep(60)", "memory": "x = bytearray(8 << 30)"}[fault]
    (tmp_path / "site/sitecustomize.py").write_text(
        "import sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'tocsin.core.bundle': {body}\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/site")
    with pytest.raises(BundleError, match="did not end within" if fault == "endless" else "crashed when it was loaded"):
        smoke(bundle_of(tmp_path / "a.tocsin"), wall_s=5)
