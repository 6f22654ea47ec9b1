"""What tests of the running agent share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tocsin.delivery.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as made:
        yield made
