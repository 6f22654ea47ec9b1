"""What native libraries write past Python on standard error, kept off the user's terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

RUNTIME = ("Created TensorFlow Lite XNNPACK delegate",)
TENSORFLOW = ("InitializeLog()", "port.cc", "cpu_feature_guard", "AVX", "cudart_stub", "cuda_platform")


@contextmanager
def without_chatter(*known: str) -> Iterator[None]:
    """Keeps lines with these words, which native code writes past Python, off standard error; others come through."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught.read().splitlines(keepends=True):
                if not any(word.encode() in line for word in known):
                    os.write(2, line)
