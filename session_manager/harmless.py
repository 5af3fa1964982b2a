"""What a page may show of what came out of a container: HTML that runs nothing and loads nothing, and pictures.

Needs the extra ``notebook``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

import nh3

from .outputs.mime import readable_text

PICTURES: Final = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
"""Mime types of pictures, and what their content begins with."""
SVG: Final = "image/svg+xml"
MOST_HTML: Final = 8 << 20
"""Characters of one piece of HTML; of a longer one the beginning is shown."""

MOST_TAGS: Final = 4000
"""Of HTML whose tags are no plain pairs: reading those may take the square of their number."""
MOST_PAIRS: Final = 200_000
"""Tags of HTML where each that begins something has its end in its place, as in a table."""
MOST_DEPTH: Final = 100
LONGEST_ODD_TAG: Final = 10_000
"""Characters from one "<" to the next, where what follows is no plain tag: it may be a million attributes."""

MOST_PLACEHOLDER: Final = 1000
"""Characters about something of which nothing else can be shown."""

TAGS: Final = nh3.ALLOWED_TAGS - {"map", "area"} | {"section", "article", "figure", "figcaption", "caption", "details"}
ATTRIBUTES: Final[Mapping[str, set[str]]] = {
    "*": {"style", "class", "title", "dir", "lang"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan", "align"},
    "th": {"colspan", "rowspan", "align", "scope"},
    "table": {"border", "align"},
    "ol": {"start"},
    "details": {"open"},
}
STYLES: Final = {
    "background-color", "border", "border-bottom", "border-collapse", "border-color", "border-left", "border-right",
    "border-top", "color", "font-family", "font-size", "font-style", "font-weight", "height", "line-height", "margin",
    "max-width", "min-width", "padding", "text-align", "text-decoration", "vertical-align", "white-space", "width",
}  # fmt: skip
"""Properties that move nothing out of its place. A value that could load something is left out."""


_PLAIN_TAG = re.compile(
    r"<(/?)([a-z][a-z0-9]{0,15}+)"
    r"(?:\s++[a-z][\w:-]*+(?:=(?:\"[^\"<>]*+\"|'[^'<>]*+'|[\w.%#-]++))?+){0,30}+\s*+/?>",
    re.IGNORECASE,
)
_PAIRS: Final = {
    "a", "b", "br", "caption", "code", "col", "colgroup", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i",
    "img", "li", "ol", "p", "pre", "small", "span", "strong", "style", "sub", "sup", "table", "tbody", "td", "tfoot",
    "th", "thead", "tr", "u", "ul", "wbr",
}  # fmt: skip
_ALONE: Final = {"br", "col", "hr", "img", "wbr"}
"""Of these, those that have no end."""


def readable_part(html: str) -> str:
    """As much of HTML, from its beginning, as is read in a time that anybody would wait for: mostly all of it."""
    html = html[:MOST_HTML]
    number = html.count("<")
    if MOST_TAGS < number <= MOST_PAIRS:
        plain = _PLAIN_TAG.findall(html)
        if len(plain) == number and _in_pairs(plain):
            return html
    end = 0
    for _ in range(min(number, MOST_TAGS)):
        begin = html.index("<", end)
        end = begin + 1
        following = html.find("<", end)
        length = (following if following >= 0 else len(html)) - begin
        if length > LONGEST_ODD_TAG and _PLAIN_TAG.match(html, begin) is None:
            return html[:begin]
    return html if number <= MOST_TAGS else html[: html.index("<", end)]


def _in_pairs(tags: Iterable[tuple[str, str]]) -> bool:
    """Whether these, each a slash or none and a name, begin and end what is in each other, and not too deep."""
    open_tags: list[str] = []
    for slash, name in tags:
        tag = name.lower()
        if tag not in _PAIRS or len(open_tags) > MOST_DEPTH:
            return False
        if slash:
            if not open_tags or open_tags.pop() != tag:
                return False
        elif tag not in _ALONE:
            open_tags.append(tag)
    return True


def harmless_html(html: str) -> str:
    """The HTML without what runs, loads, sends, or leaves its place on the page; its text and tables stay."""
    return nh3.clean(
        well_formed(readable_part(html)),
        tags=set(TAGS),
        clean_content_tags={"script", "style", "title", "template", "noscript", "iframe", "object", "svg", "math"},
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        attribute_filter=_attribute,
        url_schemes={"data", "http", "https", "mailto"},
        url_relative="deny",
        filter_style_properties=set(STYLES),
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    """An attribute's value as it may be shown; None without it."""
    match name:
        case "class":  # others would get the look, and perhaps the place, of what the page itself shows
            return "dataframe" if tag == "table" and "dataframe" in value.split() else None
        case "src":
            mime, _, content = value.removeprefix("data:").partition(";base64,")
            return picture_url(mime, content)
        case "href":
            return value if re.match(r"(?:https?|mailto):", value, re.IGNORECASE) else None
        case "style":  # url(), image-set(), and whatever else there will be that loads something
            return None if "\\" in value or re.search(r"(?<!rgb)(?<!rgba)(?<!hsl)(?<!hsla)\(", value) else value
    return value


def well_formed(text: str) -> str:
    """The text without lone surrogates, which no page can hold."""
    return text.encode(errors="replace").decode()


def picture_url(mime: str, value: object) -> str | None:
    """A ``data:`` URL for an ``img``, from a mime bundle's value; None where that is no picture of this type.

    An SVG in an ``img`` runs no script and loads nothing (SVG 2, "Secure static mode").
    """
    if not isinstance(value, str):
        return None
    if mime == SVG:
        text = value.encode(errors="replace")
        content = text if b"<svg" in text[:65536] else _decoded(value)
        if b"<svg" not in content[:65536]:
            return None
    else:
        content = _decoded(value)
        begins = PICTURES.get(mime)
        if begins is None or not content.startswith(begins):
            return None
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(re.sub(r"\s+", "", value), validate=True)
    except (binascii.Error, ValueError):
        return b""


def harmless_data(data: Mapping[str, object]) -> dict[str, object]:
    """What a page can show of a mime bundle without harm, as one mime type: HTML, which may be a picture, or text."""
    html = data.get("text/html")
    if isinstance(html, str):
        cleaned = harmless_html(html)
        # what a script was to fill shows nothing without it
        if "<img " in cleaned or nh3.clean(cleaned, tags=set()).strip():
            return {"text/html": cleaned}
    for mime in (*PICTURES, SVG):
        if url := picture_url(mime, data.get(mime)):
            return {"text/html": f'<img src="{url}" alt="">'}
    for mime in ("text/markdown", "text/latex", "text/plain"):
        if isinstance(text := data.get(mime), str):
            return {"text/plain": well_formed(text)}
    return {"text/plain": well_formed(readable_text(data, MOST_PLACEHOLDER))}
