"""A small language for conditions over channels: text → a tree, and nothing but a tree.

```
pressure > 4 and flow < 1                 comparisons, and, or, not, ( )
abs(inlet - outlet) / 2 >= 0.3            + - * /, abs, min and max of several
mean(current, 10s) > 1.2 * nominal        mean, min, max over a time; delta: less its value so long ago
```
Binds tighter from left to right: `or`, `and`, `not`, comparison, `+ -`, `* /`, sign. A mistake is told with its column.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_LENGTH, MAX_DEPTH = 500, 30
LONGEST_S = 86400.0
UNITS_S = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
OVER_TIME = ("mean", "min", "max", "delta")
OF_SEVERAL = {"abs": (1, 1), "min": (2, 8), "max": (2, 8)}
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>ms|s|min|h)?(?![A-Za-z0-9_.])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign><=|>=|==|!=|[-+*/()<>,])"
)


class ExpressionError(ValueError):
    """What is wrong, and in which column, with the text to show."""

    def __init__(self, said: str, text: str, column: int) -> None:
        super().__init__(f"{said} at column {column + 1} of `{text}`")
        self.column = column


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    Attributes:
        kind: `number`, `channel`, `call`, `over` or an operator; `sign` is the unary minus.
        parts: what it is made of.
        value: of a number; seconds, of a function over time.
        name: of a channel or function.
        column: where it begins, from 0.
    """

    kind: str
    parts: tuple["Node", ...] = ()
    value: float = 0.0
    name: str = ""
    column: int = 0

    @property
    def is_truth(self) -> bool:
        """True or false, instead of a number."""
        return self.kind in (*COMPARISONS, "and", "or", "not")

    def channels(self) -> tuple["Node", ...]:
        """Every mention of a channel, from left to right."""
        own = (self,) if self.kind == "channel" else ()
        return own + tuple(node for part in self.parts for node in part.channels())

    def over_time(self) -> tuple["Node", ...]:
        """Every function over a time."""
        own = (self,) if self.kind == "over" else ()
        return own + tuple(node for part in self.parts for node in part.over_time())


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int
    value: float = 0.0
    seconds: float | None = None


def parse(text: str) -> Node:
    """The tree of a condition.

    Raises:
        ExpressionError: it is none.

    >>> parse("flow < 1").kind
    '<'
    >>> parse("flow <")
    Traceback (most recent call last):
    tocsin.alarms.expression.ExpressionError: expected a number, a channel or a function at column 7 of `flow <`
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters", text[:20] + "…", MAX_LENGTH)
    return _Parser(text).condition()


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at]!r} has no meaning here", text, at)
        if match["number"]:
            value, unit = float(match["number"]), match["unit"]
            if value == float("inf"):
                raise ExpressionError("too large a number", text, at)
            tokens.append(_Token("number", match[0], at, value, value * UNITS_S[unit] if unit else None))
        else:
            word = match[0] in ("and", "or", "not")
            tokens.append(_Token("sign" if match["sign"] or word else "name", match[0], at))
        at = match.end()
    return [*tokens, _Token("end", "", at)]


class _Parser:
    """Recursive descent; one method a level of binding."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._depth = text, _tokens(text), 0

    def condition(self) -> Node:
        node = self._truth(self._or())
        if self._next.kind != "end":
            raise self._wrong(f"expected and, or, or the end, got {self._next.text!r}")
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[0]

    def _take(self, *texts: str) -> _Token | None:
        token = self._next
        return self._tokens.pop(0) if token.kind == "sign" and token.text in texts else None

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(f"expected {text!r}")

    def _wrong(self, said: str, column: int | None = None) -> ExpressionError:
        return ExpressionError(said, self._text, self._next.column if column is None else column)

    def _truth(self, node: Node) -> Node:
        if not node.is_truth:
            raise self._wrong("expected a comparison such as `flow < 1`, got a number", node.column)
        return node

    def _number(self, node: Node) -> Node:
        if node.is_truth:
            raise self._wrong("expected a number, got a comparison", node.column)
        return node

    def _or(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"nested deeper than {MAX_DEPTH} levels")
        node = self._row(self._and, self._truth, "or")
        self._depth -= 1
        return node

    def _and(self) -> Node:
        return self._row(self._not, self._truth, "and")

    def _row(self, inner: Callable[[], Node], check: Callable[[Node], Node], *signs: str) -> Node:
        """Operands of one binding, taken together from the left."""
        node = inner()
        while token := self._take(*signs):
            node = Node(token.text, (check(node), check(inner())), column=node.column)
        return node

    def _not(self) -> Node:
        negations = []
        while token := self._take("not"):
            negations.append(token.column)
        node = self._comparison()
        for column in reversed(negations):
            node = Node("not", (self._truth(node),), column=column)
        return node

    def _comparison(self) -> Node:
        node = self._sum()
        token = self._take(*COMPARISONS)
        if token is None:
            return node
        node = Node(token.text, (self._number(node), self._number(self._sum())), column=node.column)
        if self._next.text in COMPARISONS:
            raise self._wrong("one comparison at a time: join two with `and`")
        return node

    def _sum(self) -> Node:
        return self._row(self._product, self._number, "+", "-")

    def _product(self) -> Node:
        return self._row(self._sign, self._number, "*", "/")

    def _sign(self) -> Node:
        minus, column = 0, self._next.column
        while token := self._take("-", "+"):
            minus += token.text == "-"
        node = self._atom()
        return Node("sign", (self._number(node),), column=column) if minus % 2 else node

    def _atom(self) -> Node:
        token = self._next
        if self._take("("):
            node = self._or()
            self._need(")")
            return node
        if token.kind == "number" and token.seconds is None:
            self._tokens.pop(0)
            return Node("number", value=token.value, column=token.column)
        if token.kind == "name":
            self._tokens.pop(0)
            return self._call(token) if self._next.text == "(" else Node("channel", (), 0.0, token.text, token.column)
        if token.seconds is not None:
            raise self._wrong("a time stands only in mean, min, max or delta: expected a number")
        raise self._wrong("expected a number, a channel or a function")

    def _call(self, name: _Token) -> Node:
        if name.text not in (*OVER_TIME, *OF_SEVERAL):
            known = ", ".join(sorted({*OVER_TIME, *OF_SEVERAL}))
            raise self._wrong(f"no function {name.text!r}, there are {known}", name.column)
        self._need("(")
        parts = [self._number(self._or())]
        while self._take(","):
            if self._next.seconds is not None and name.text in OVER_TIME and len(parts) == 1:
                time = self._tokens.pop(0)
                seconds = time.seconds
                assert seconds is not None
                if not seconds <= LONGEST_S:
                    raise self._wrong(f"expected 24h at the most, got {time.text}", time.column)
                self._need(")")
                return Node("over", tuple(parts), seconds, name.text, name.column)
            parts.append(self._number(self._or()))
        self._need(")")
        least, most = OF_SEVERAL.get(name.text, (0, 0))
        if not least <= len(parts) <= most:
            over = f"{name.text}(x, 10s)" if name.text in OVER_TIME else f"{name.text}(x)"
            several = f" or {name.text}(x, y)" if most > 1 else ""
            raise self._wrong(f"expected {over}{several}", name.column)
        return Node("call", tuple(parts), 0.0, name.text, name.column)
