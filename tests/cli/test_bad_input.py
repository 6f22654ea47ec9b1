"""Every folder of `bad_input` is one mistake a user makes: a command, what it says, and how it ends."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

CASES = Path(__file__).parent / "bad_input"
BUNDLE = Path(__file__).parent.parent / "data/small.tocsin"


@pytest.mark.parametrize("case", sorted(folder.name for folder in CASES.iterdir()))
def test_it_is_told_in_one_line_what_is_wrong(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tocsin: Callable[..., tuple[int, str, str]]
) -> None:
    here = tmp_path / "case"
    shutil.copytree(CASES / case, here)
    expected = yaml.safe_load((here / "case.yaml").read_text("utf-8"))
    monkeypatch.chdir(here)
    stands_for = {"OUT": str(tmp_path / "out"), "BUNDLE": str(BUNDLE)}
    code, _, stderr = tocsin(*(stands_for.get(word, word) for word in expected["command"]))
    assert code == expected["exit"], stderr
    assert [words for words in expected["says"] if words not in stderr] == [], stderr
    assert "Traceback" not in stderr
    if code not in (0, 2):
        (line,) = stderr.splitlines()
        assert line.startswith("tocsin: error: ")
