"""A source straight to the recorder, without a model."""

import logging
import random
import threading

from tocsin.errors import SourceError
from tocsin.recorder.recorder import Recorder
from tocsin.sources import Source

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.5
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0


def record_source(asset: str, source: Source, recorder: Recorder, stopping: threading.Event) -> bool:
    """Reads until told to stop or until the source ends; opens it again when it is lost.

    Args:
        asset: name of the stream.
        source: not opened yet; closed at the end.
        recorder: started.
        stopping: ends it.

    Returns:
        False where it ended in damage.
    """
    delay_s, said = FIRST_DELAY_S, ""
    try:
        while not stopping.is_set():
            try:
                source.open()
                while not stopping.is_set():
                    block = source.read(READ_TIMEOUT_S)
                    if len(block):
                        recorder.put(asset, source.channels, block)
                        if said:
                            log.info("%s: samples flow", asset)
                        delay_s, said = FIRST_DELAY_S, ""
                    if source.ended:
                        return True
            except SourceError as error:
                if str(error) != said:
                    log.error("%s: %s", asset, error)
                said = str(error)
                if source.ended:
                    return False
                source.close()
                stopping.wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        return True
    finally:
        source.close()
