"""What updates cost a device: bytes on the link for a look and for an update, memory of the updater.

`python benchmarks/update_cost.py [BUNDLE]`. A proxy on the loopback counts every byte in both directions, HTTP's
headers too (TCP and TLS apart); memory is the peak of the updater's process.
"""

import functools
import json
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tocsin_fleet.release.keys import Keys
from tocsin_fleet.release.release import Release

RUN = """
import resource, sys
from tocsin.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


class Link:
    """Passes bytes on, and counts them."""

    def __init__(self, to: int) -> None:
        self.bytes, self._to = 0, to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self.bytes += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def main() -> None:
    bundle = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/small.tocsin").resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release = Release(folder / "release/repository", Keys([folder / "release/keys"], lambda: "correct horse"))
        release.init()
        (folder / "root.json").write_bytes(release.root())
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(release.folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        link = Link(server.server_port)
        wanted = {"repository": f"http://127.0.0.1:{link.port}", "trusted_root": "root.json"}
        source = {"type": "replay", "files": ["normal.csv"]}
        asset = {"id": "pump-1", "product": "pump", "bundle": str(bundle), "source": source}
        document = {"version": 1, "device": "edge-1", "state_dir": "state", "update": wanted, "assets": [asset]}
        (folder / "tocsin.yaml").write_text(json.dumps(document))

        def updater(command: str) -> tuple[int, int]:
            before = link.bytes
            words = [sys.executable, "-c", RUN, "update", command, "-c", "tocsin.yaml"]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
            return link.bytes - before, int(done.stdout.split()[-1])

        updater("check")
        nothing, peak_mb = updater("check")
        path, _ = release.publish(bundle, "pump")
        release.assign("pump", {"format": 1, "rollout": "r1", "target": path, "share": 10_000})
        update, applied_mb = updater("apply")
        size = bundle.stat().st_size
        print(f"a look that finds nothing new   {nothing:>9,} bytes   (asked: at most 2,000)")
        print(f"an update, besides the bundle   {update - size:>9,} bytes   (asked: at most 10,000)")
        print(f"memory of a look                {peak_mb:>9} MB      (asked: at most 45)")
        print(f"memory of an update             {applied_mb:>9} MB")
        server.shutdown()


if __name__ == "__main__":
    main()
