"""Where a number stands in a JSON payload: `sensors[0].value`.

```
path   = "" | step { step }          ""  the payload itself is the number
step   = [ "." ] key | "[" index "]" | '["' any key '"]'
key    = letters, digits, "_", "-", and all that is none of . [ ] " and space
index  = 0, 1, … or -1, -2, … from the end
```
A leading `$` or `$.` is allowed, as JSONPath writes it. Rules: what is read is a finite number, `true` or `false` (1 or
0), or a number in a string; anything else is no value. A payload that is not JSON, nests deeper than Python likes, or
names `NaN` is refused as a whole. Nothing here raises but what is documented.
"""

import json
import math
import re
from typing import Any, NoReturn

Steps = tuple[str | int, ...]

_STEP = re.compile(
    r"""(?P<dot>\.)?(?P<key>[^\s.\[\]"$]+)|\[(?P<index>-?\d{1,9})\]|\["(?P<quoted>(?:[^"\\]|\\["\\])*)"\]"""
)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LONGEST_NUMBER = 64


def parse_path(text: str) -> Steps:
    """Steps of a path.

    >>> parse_path('sensors[0].value')
    ('sensors', 0, 'value')
    >>> parse_path('$["flow rate"]')
    ('flow rate',)

    Raises:
        ValueError: says what was expected and where.
    """
    rest = text.removeprefix("$")
    done = len(text) - len(rest)
    steps: list[str | int] = []
    while done < len(text):
        match = _STEP.match(text, done)
        first_key = not steps and not text.startswith("$")
        if match is None or (match["key"] is not None and bool(match["dot"]) == first_key):
            raise ValueError(
                f"path {text!r}: column {done + 1}: expected "
                f"""{"a key" if first_key else ".key"}, [number] or ["key"]: as in sensors[0].value"""
            )
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            key: str = match["key"] or re.sub(r"\\(.)", r"\1", match["quoted"] or "")
            steps.append(key)
        done = match.end()
    return tuple(steps)


def read_payload(payload: bytes) -> Any:
    """The payload as Python's dicts, lists, strings and numbers.

    Raises:
        ValueError: it is no JSON that can be used.
    """
    try:
        return json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError, and numbers of thousands of digits
        raise ValueError(f"not JSON: {type(error).__name__}") from error


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def value_at(document: Any, path: Steps) -> Any:
    """What stands at the path; None where nothing does."""
    found = document
    for step in path:
        of_object = isinstance(step, str) and isinstance(found, dict) and step in found
        of_list = isinstance(step, int) and isinstance(found, list) and -len(found) <= step < len(found)
        if of_object or of_list:
            found = found[step]
        else:
            return None
    return found


def number_at(document: Any, path: Steps) -> float | None:
    """The number at the path; NaN where something else stands there, None where nothing does, or `null`.

    >>> number_at({"a": [1, "2.5", None]}, ("a", 1))
    2.5
    """
    found = value_at(document, path)
    return None if found is None else _number(found)


def _number(found: Any) -> float:
    if isinstance(found, str):
        usable = len(found) <= _LONGEST_NUMBER and _NUMBER.fullmatch(found)
        value = float(found) if usable else math.nan
    elif isinstance(found, int | float):
        try:
            value = float(found)
        except OverflowError:
            value = math.nan
    else:
        value = math.nan
    return value if math.isfinite(value) else math.nan
