"""What all tests share: a test that needs mosquitto skips where there is none, and fails where CI promised it."""

import os
import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("broker") is None or shutil.which("mosquitto"):
        return
    reason = "mosquitto is not installed: apt-get install mosquitto"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
