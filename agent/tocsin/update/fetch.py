"""Bytes from a repository: https, http, a folder, or a stick; downloads that resume.

Rules: nothing is followed elsewhere (no redirects), nothing is longer than was said, nothing takes for ever: each read
has a time-out, and all of a file a lowest rate. What is cut goes on where it was cut. Errors become `FetchError`.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from tocsin import __version__
from tocsin.errors import TocsinError, TrustError

TIMEOUT_S = 20.0
GRACE_S, LOWEST_RATE = 30.0, 1024.0  # after so long a download has to be faster, bytes a second
_CHUNK = 65_536


class FetchError(TocsinError):
    """It cannot be had just now; worth trying again."""


class Fetcher(FetcherInterface):
    """Reads what a URL names.

    Args:
        ca_file: whom to trust as the server; None: the system's.
        timeout_s: of each read.
        grace_s: after so long a file has to come faster than `LOWEST_RATE`.

    Attributes:
        bytes_read: so far.
    """

    def __init__(self, ca_file: Path | None = None, timeout_s: float = TIMEOUT_S, grace_s: float = GRACE_S) -> None:
        self._timeout = urllib3.Timeout(connect=timeout_s, read=timeout_s)
        self._grace_s, self.bytes_read = grace_s, 0
        self._pool = urllib3.PoolManager(
            headers={"User-Agent": f"tocsin/{__version__}"},
            ca_certs=None if ca_file is None else str(ca_file),
            retries=False,
        )

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.stream(url)

    def stream(self, url: str, offset: int = 0) -> Iterator[bytes]:
        """A file from an offset on; all of it where the server knows no ranges: the first chunk is then empty.

        Raises:
            DownloadError: in the words of The Update Framework.
        """
        if urlsplit(url).scheme in ("", "file"):
            return self._of_folder(Path(unquote(urlsplit(url).path)), offset)
        return self._of_server(url, offset)

    def _of_folder(self, path: Path, offset: int) -> Iterator[bytes]:
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            raise DownloadHTTPError(f"{path} is not there", 404) from error
        except OSError as error:
            raise DownloadError(f"{path}: {error.strerror}") from error
        return self._read_file(file, offset)

    def _read_file(self, file: BinaryIO, offset: int) -> Iterator[bytes]:
        with file:
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                self.bytes_read += len(chunk)
                yield chunk

    def _of_server(self, url: str, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = self._pool.request("GET", url, headers=headers, preload_content=False, timeout=self._timeout,
                                          redirect=False)  # fmt: skip
        except urllib3.exceptions.TimeoutError as error:
            raise SlowRetrievalError(f"{url}: no answer") from error
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(f"{url}: {error}") from error
        if response.status != (206 if offset else 200) and not (offset and response.status == 200):
            response.close()
            raise DownloadHTTPError(f"{url}: the server says {response.status}", response.status)
        return self._read_response(url, response, restarted=bool(offset) and response.status == 200)

    def _read_response(self, url: str, response: urllib3.response.BaseHTTPResponse, restarted: bool) -> Iterator[bytes]:
        begin_s, came = time.monotonic(), 0
        if restarted:
            yield b""
        try:
            while chunk := response.read1(_CHUNK):
                came += len(chunk)
                self.bytes_read += len(chunk)
                took_s = time.monotonic() - begin_s
                if took_s > self._grace_s and came < LOWEST_RATE * took_s:
                    raise SlowRetrievalError(f"{url}: {came / took_s:.0f} bytes a second")
                yield chunk
        except urllib3.exceptions.TimeoutError as error:
            raise SlowRetrievalError(f"{url}: nothing came for too long") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise DownloadError(f"{url}: cut off: {error}") from error
        finally:
            response.close()


def download(fetcher: Fetcher, url: str, path: Path, length: int, sha256: str) -> None:
    """A file into `path`, going on with what is there from before.

    Args:
        fetcher: reads it.
        url: of the file.
        path: grows; whole when this returns.
        length: bytes that were signed.
        sha256: that was signed.

    Raises:
        FetchError: it was cut, or is not to be had; what came stays.
        TrustError: it is another file than was signed; nothing stays.
    """
    have = path.stat().st_size if path.exists() else 0
    if have > length:
        path.unlink()
        have = 0
    try:
        if have < length:
            with path.open("ab") as file:
                for chunk in fetcher.stream(url, have):
                    if not chunk:
                        file.truncate(0)
                        have = 0
                    have += len(chunk)
                    if have > length:
                        break
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
    except DownloadError as error:
        raise FetchError(f"{error}; {path.stat().st_size} of {length} bytes are here") from error
    except OSError as error:
        raise FetchError(f"{path}: cannot be written: {error.strerror}") from error
    if have < length:
        raise FetchError(f"{url}: {have} of {length} bytes came")
    found = "longer than was signed"
    if have == length:
        with path.open("rb") as whole:
            found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise TrustError(f"{url}: is not the file that was signed: expected sha256 {sha256}, got {found}")
