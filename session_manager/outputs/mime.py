"""What can be read of a mime bundle as text, and one line in place of what can't."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser

from .escapes import strip_escapes

_MAX_HTML_CHARS = 200_000
_MAX_HEADER_CHARS = 65_536
_MAX_PIXELS_A_SIDE = 100_000
_MAX_CAPTION_CHARS = 200
_SIZED_IMAGES = ("image/png", "image/jpeg", "image/gif")
# What IPython prints for an object that only has another representation.
_BARE_REPR = re.compile(r"\s*<[^<>\n]{1,200}>\s*")


def readable_text(data: Mapping[str, object], max_chars: int) -> str:
    """The bundle as text: Markdown before plain text, LaTeX, JSON, then HTML without its tags.

    Pictures, sound and what needs a script to be seen become one line with their type and size. Of HTML and
    JSON, which have to be rewritten, only so much is read as can be shown.
    """
    plain = _text(data, "text/plain")
    if len(data) > 1 and _BARE_REPR.fullmatch(plain[:300]):
        plain = ""
    opaque = [mime for mime in data if not mime.startswith("text/") and mime != "application/json"]
    if opaque:
        mime = next((mime for mime in opaque if mime in _SIZED_IMAGES), opaque[0])
        shown = _text(data, "text/markdown") or plain
        # A long text/plain beside a chart is the dump of its data.
        caption = shown if len(shown) <= _MAX_CAPTION_CHARS or mime.startswith("image/") else ""
        return "\n".join(filter(None, (caption, _placeholder(mime, data[mime]))))
    text = _text(data, "text/markdown") or plain or _text(data, "text/latex")
    if not text and "application/json" in data:
        text = _pretty_json(data["application/json"], max_chars)
    if not text:
        text = html_to_text(_text(data, "text/html"))
    if not text:
        unreadable = [mime for mime, value in data.items() if mime != "text/plain" and value != ""]
        text = _placeholder(unreadable[0], data[unreadable[0]]) if unreadable else ""
    return text


def _text(data: Mapping[str, object], mime: str) -> str:
    value = data.get(mime)
    return value if isinstance(value, str) else ""


def _placeholder(mime: str, value: object) -> str:
    name = strip_escapes(mime[:100]).replace("\n", " ")
    if not isinstance(value, str):
        return f"[{name}]"
    if not mime.startswith(("image/", "audio/", "video/")) or mime == "image/svg+xml":
        return f"[{name}, {_amount(len(value))}]"
    newlines = value.count("\n")
    size = (len(value) - newlines) * 3 // 4 - value.count("=", -4)
    pixels = image_size(value) if mime.startswith("image/") else None
    return f"[{name} {pixels[0]}x{pixels[1]}, {_amount(size)}]" if pixels else f"[{name}, {_amount(size)}]"


def _amount(size: int) -> str:
    if size < 1000:
        return f"{max(0, size)} bytes"
    return f"{size / 1000:.0f} kB" if size < 999_500 else f"{size / 1_000_000:.1f} MB"


def image_size(encoded: str) -> tuple[int, int] | None:
    """Width and height in pixels, from the header of a base64 PNG, GIF or JPEG; None if it has none."""
    compact = re.sub(r"\s+", "", encoded[:_MAX_HEADER_CHARS])
    try:
        header = base64.b64decode(compact[: len(compact) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return None
    if header.startswith(b"\x89PNG\r\n\x1a\n") and header[12:16] == b"IHDR" and len(header) >= 24:
        size = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    elif header.startswith((b"GIF87a", b"GIF89a")) and len(header) >= 10:
        size = int.from_bytes(header[6:8], "little"), int.from_bytes(header[8:10], "little")
    elif header.startswith(b"\xff\xd8"):
        size = _jpeg_size(header)
    else:
        return None
    return size if all(0 < side <= _MAX_PIXELS_A_SIDE for side in size) else None


def _jpeg_size(header: bytes) -> tuple[int, int]:
    """The size in the first frame header (SOF0 to SOF15, without the tables C4, C8 and CC), or zeros."""
    position = 2
    while position + 9 <= len(header) and header[position] == 0xFF:
        marker = header[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(header[position + 5 : position + 7], "big")
            return int.from_bytes(header[position + 7 : position + 9], "big"), height
        # At least the two bytes of the length itself, so that the walk always gets on.
        position += 2 + max(2, int.from_bytes(header[position + 2 : position + 4], "big"))
    return 0, 0


def _pretty_json(value: object, max_chars: int) -> str:
    parts: list[str] = []
    length = 0
    try:
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
            parts.append(part)
            length += len(part)
            if length > 2 * max_chars:
                parts.append("…")
                break
    except (TypeError, ValueError, RecursionError):
        return ""
    return "".join(parts)


# A quoted value may hold angle brackets, but is then looked through only so far: many unclosed ones add up.
_TAG = re.compile(
    r"<(/?)([A-Za-z][A-Za-z0-9]{0,15}+)(?![A-Za-z0-9])"
    r"(?:(?:[^<>\"']{1,200}+|\"[^\"<>]*+\"|\"[^\"]{0,200}+\"|'[^'<>]*+'|'[^']{0,200}+'){0,12}+>|[^<>]*+>)"
)
_OTHER_ANGLE = re.compile(r"<(?!/?[A-Za-z][A-Za-z0-9]{0,15}+>)")
_HIDDEN = frozenset({"script", "style", "head", "title", "template", "svg", "math"})
# fmt: off
_LINES = frozenset({
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol",
    "p", "pre", "section", "table", "tbody", "tfoot", "thead", "tr", "ul",
})
# fmt: on


def html_to_text(html: str) -> str:
    """The text of HTML: tags, scripts and styles gone, a line for each block, bars between table cells.

    Reads the first 200,000 characters.
    """
    html = _without_comments(html[:_MAX_HTML_CHARS])
    # The standard parser takes quadratic time on broken tags and attributes: it gets only bare, whole tags.
    html = _OTHER_ANGLE.sub("&lt;", _TAG.sub(r"<\1\2>", html))
    parser = _TextOfHtml()
    parser.feed(html)
    parser.close()
    lines = (line.rstrip() for line in "".join(parser.parts).replace("\xa0", " ").split("\n"))
    return "\n".join(line for line in lines if line.strip("| "))


def _without_comments(html: str) -> str:
    kept: list[str] = []
    position = 0
    while (start := html.find("<!--", position)) >= 0:
        kept.append(html[position:start])
        end = html.find("-->", start + 4)
        if end < 0:
            return "".join(kept)
        position = end + 3
    kept.append(html[position:])
    return "".join(kept)


class _TextOfHtml(HTMLParser):
    """Collects text. Whitespace of the source is one space, except within ``pre``."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: str | None = None
        self._in_pre = False
        self._in_row = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if self._hidden is None and tag in _HIDDEN:
            self._hidden = tag
        elif tag in _LINES:
            self.parts.append("\n- " if tag == "li" else "\n")
            self._in_pre = self._in_pre or tag == "pre"
            self._in_row = False
        elif tag in ("td", "th"):
            self.parts.append(" | " if self._in_row else "")
            self._in_row = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = None
        elif tag in _LINES:
            self.parts.append("\n")
            self._in_pre = self._in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._hidden is not None:
            return
        if not self._in_pre:
            data = re.sub(r"[ \t\n\r\f]+", " ", data)
            if not self.parts or self.parts[-1].endswith(("\n", " ")):
                data = data.lstrip(" ")
        if data:
            self.parts.append(data)


def count_chars(data: Mapping[str, object]) -> int:
    """About how many characters :func:`readable_text` would give, without reading."""
    return len(_text(data, "text/plain"))
