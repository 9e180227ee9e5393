"""Renders a report as one self-contained HTML file with its style, script and data.

The text of a corpus is untrusted. It enters the page as JSON without `<`, `>` and `&`, so no text can end its element;
the script shows it only in text nodes; and a Content Security Policy allows only this style and this script, by their
hashes, and no network connection.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# Concatenated in this order.
_SCRIPTS = ("marks.js", "plots.js", "reader.js", "report.js")
_MARKER = re.compile(r"\{\{(\w+)\}\}")
# U+2028 and U+2029 end a line in older scripts.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render_page(report: Mapping[str, Any]) -> bytes:
    """The page of a value of `gathering.gather`."""
    style = _asset("report.css")
    script = "\n".join(map(_asset, _SCRIPTS))
    values = {
        "policy": _policy(style, script),
        "title": html.escape(f"{report['dataset']['dataset'].rstrip('/').rpartition('/')[2]} · logitcask report"),
        "style": style,
        "script": script,
        "data": embed_json(report),
    }
    # In one pass, so that a marker in the data is not replaced.
    page = _MARKER.sub(lambda match: values[match[1]], _asset("report.html"))
    return page.encode(errors="replace")


def embed_json(value: Any) -> str:
    """JSON that cannot end its HTML element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return files("logitcask.schemas.report").joinpath(name).read_text(encoding="utf-8")
