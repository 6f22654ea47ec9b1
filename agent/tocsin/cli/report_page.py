"""The page of `tocsin alarms report`: one file, no network, light and dark."""

from collections.abc import Sequence
from html import escape

from tocsin.alarms.report import FLOOD, INTERVAL_S, Figures
from tocsin.delivery.wire import rfc3339

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --bar: #2f6f9f; --over: #b3261e; --line: #d0d7de; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --bar: #6cb0e0; --over: #ff8a80;
  --line: #3d444d; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } .soft { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; }
dt { color: var(--soft); } dd { margin: 0; font-size: 1.3rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .25rem .5rem;
  border-bottom: 1px solid var(--line); } svg { width: 100%; height: auto; } rect { fill: var(--bar); }
rect.over { fill: var(--over); } text { fill: var(--soft); font-size: 11px; } line { stroke: var(--line); }
"""
_WIDTH, _HEIGHT, _MOST_BARS = 900, 160, 300


def page(found: Figures) -> str:
    """The whole page."""
    facts = {
        "Alarms": str(found.calls),
        "In ten minutes, mean": f"{found.mean:.2f}",
        "In ten minutes, most": str(found.most),
        f"Time with more than {FLOOD}": f"{found.flooded:.1%}",
        "Standing at the end": str(found.standing),
        "Time to acknowledge, median": "–" if found.ack_median_s is None else f"{found.ack_median_s:.0f} s",
    }
    parts = [
        f"<p class=soft>{rfc3339(found.since_s)} to {rfc3339(found.until_s)}, by ISA-18.2 and EEMUA 191</p>",
        f"<p><strong>{escape(found.verdict)}</strong></p>",
        "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items()) + "</dl>",
        "<h2>Alarms over time</h2>" + _bars(found),
        _table("Those that call most", ("alarm", "calls", "share"),
               [(one.alarm, str(one.count), f"{one.share:.0%}") for one in found.worst]),
        _table("Severities", ("severity", "calls"), [(name, str(count)) for name, count in found.severities.items()]),
        _table("Those that chatter", ("alarm", "calls within a minute"),
               [(name, str(count)) for name, count in found.chattering]),
        _table("Those that stand for more than a day", ("alarm", "hours"),
               [(name, f"{hours:.0f}") for name, hours in found.stale]),
    ]  # fmt: skip
    view = "<meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head = f"{view}<title>Alarms</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body><h1>Alarms</h1>{''.join(parts)}</body></html>\n"


def _bars(found: Figures) -> str:
    """Calls in each ten minutes, of a long period the most of several together."""
    together = -(-len(found.per_interval) // _MOST_BARS)
    counts = [max(found.per_interval[n : n + together]) for n in range(0, len(found.per_interval), together)]
    top = max(FLOOD + 2, *counts)
    step, bars = _WIDTH / len(counts), []
    for n, count in enumerate(counts):
        height = count / top * _HEIGHT
        about = f"{rfc3339(found.since_s + n * together * INTERVAL_S)}: {count}"
        bars.append(
            f"<rect class={'over' if count > FLOOD else 'in'} x={n * step:.1f} y={_HEIGHT - height:.1f} "
            f"width={max(step - 0.5, 0.5):.1f} height={height:.1f}><title>{about}</title></rect>"
        )
    limit = _HEIGHT - FLOOD / top * _HEIGHT
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT + 4}' role=img aria-label='alarms in each ten minutes'>{''.join(bars)}"
        f"<line x1=0 x2={_WIDTH} y1={limit:.1f} y2={limit:.1f} stroke-dasharray=4></line>"
        f"<text x=4 y={limit - 4:.1f}>{FLOOD} in ten minutes: a flood</text></svg>"
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<h2>{escape(title)}</h2><p class=soft>none</p>"
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>"
