"""The frame of a page that stands alone: no script, no font, no address, said in its content security policy."""

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path

from tocsin.errors import TocsinError
from tocsin_trainer.markup import text


def sheet(title: str, kind: str, heading: str, body: str) -> str:
    """A whole page.

    Args:
        title: of the browser's tab; escaped here, as `kind` and `heading` are.
        kind: small line above the heading.
        heading: large.
        body: HTML.
    """
    css = resources.files("tocsin_trainer").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{css}</style>\n</head>\n<body>\n"
        f'<header><p class="kind">{text(kind)}</p>\n<h1>{text(heading)}</h1></header>\n<main>\n{body}</main>\n'
        "</body>\n</html>\n"
    )


def write_page(path: Path, content: str) -> None:
    """Writes the page, whole or not at all.

    Raises:
        TocsinError: the folder is not there or cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise TocsinError(f"{path}: cannot be written: {error.strerror or error}") from error
