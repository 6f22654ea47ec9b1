"""matplotlib figure → SVG inside an HTML page.

Rules: a colour is the name of one of the page's CSS variables, so one picture serves light and dark; nothing carries a
`style` attribute, so the page's policy can forbid it; only ids in use stay, and differ from picture to picture; equal
drawings give equal text.
"""

import io
import re
from contextlib import AbstractContextManager
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

_INKS = ("ink", "faint", "signal", "alarm", "label", "tone1", "tone2", "tone3", "tone4", "tone5", "tone6")
COLOUR = {name: f"#00{index:02x}fe" for index, name in enumerate(_INKS)}  # stand-ins, replaced by `var(--name)`
_NAME = {colour: f"var(--{name})" for name, colour in COLOUR.items()}
_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a channel may be called `$x`
    "font.size": 9.0,
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["faint"],
    "axes.labelcolor": COLOUR["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "xtick.color": COLOUR["faint"],
    "ytick.color": COLOUR["faint"],
    "xtick.labelcolor": COLOUR["ink"],
    "ytick.labelcolor": COLOUR["ink"],
    "grid.color": COLOUR["faint"],
    "grid.linewidth": 0.4,
    "lines.linewidth": 0.9,
    "legend.frameon": False,
}


def drawing(name: str) -> AbstractContextManager[None]:
    """Matplotlib's settings while a picture is drawn and written; `name` is unique among the pictures of a page."""
    return mpl.rc_context({**_RC, "svg.hashsalt": name})


def inline_svg(figure: Figure, words: str) -> str:
    """The figure for the inside of an HTML page; `words` say what it shows to those who cannot see it."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314 - our own drawing
    text = stream.getvalue()
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for parent in root.iter():
        for child in [*parent]:
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _attributes(element, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": words}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _attributes(element: ElementTree.Element, used: set[str]) -> dict[str, str]:
    out = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if out.get("id") not in used:
        out.pop("id", None)
    for declaration in filter(None, (part.strip() for part in out.pop("style", "").split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = re.search(r"([\d.]+)px", value)
            key, value = "font-size", size.group(1) if size else "9"
        out[key] = _NAME.get(value, value)
    if "d" in out:
        out["d"] = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", out["d"]).replace("\n", " ")
    return out
