"""A replay as a page in one file, to be shown and kept: no script, nothing that is loaded from elsewhere.

All that came from a notebook or out of a container is hostile here. It gets onto the page as text, as HTML that
:mod:`~session_manager.harmless` has cleaned, or as a picture in an ``img``. Needs the extra ``notebook``.
"""

# mypy: untyped-calls-exclude="pygments,nbconvert"

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from nbconvert.filters.ansi import ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.python import PythonLexer

from ..execution import readable_size
from ..harmless import harmless_data, harmless_html, picture_url, well_formed
from ..outputs import strip_escapes, terminal_safe
from ..outputs.mime import readable_text
from .compare import Output, bundle_of, text_of
from .normalise import last_state
from .reported import Report, ReportedCell, ReportedText

MOST_CHARACTERS = 200_000
"""Of one output's text; of a longer one the beginning and the end are shown."""
MOST_CODE = 50_000
"""Characters of a cell's code that are coloured; more is plain text."""
MOST_MARKDOWN = 20_000
"""Characters of a cell that are laid out; more is plain text, as hostile text takes nbconvert more than linear time."""
MOST_OUTPUTS = 500
"""Of one cell."""
LIGHT, DARK = "friendly", "github-dark"
"""Colours of code."""


def render(report: Report) -> str:
    """The page."""
    cells = [cell for cell in report.cells if isinstance(cell, ReportedCell)]
    return well_formed(template().render(report=report, cells=cells))


@cache
def template() -> Template:
    """The page, with what fills it."""
    environment = Environment(
        loader=PackageLoader("session_manager.replay", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "code": code,
        "text": text,
        "outputs": outputs,
        "size": readable_size,
        "seconds": seconds,
        "diff": diff,
        "sheet": sheet,
    }
    environment.globals |= {
        "light": Markup(HtmlFormatter(style=LIGHT).get_style_defs(".code")),  # noqa: S704 - of Pygments itself
        "dark": Markup(HtmlFormatter(style=DARK).get_style_defs(".code")),  # noqa: S704
        "UTC": UTC,
    }
    environment.tests["code_cell"] = lambda cell: isinstance(cell, ReportedCell)
    return environment.get_template("report.html.j2")


def seconds(amount: float) -> str:
    """A length of time for people."""
    if amount < 60:
        return f"{amount:.2f} s" if amount < 10 else f"{amount:.1f} s"
    minutes, left = divmod(round(amount), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"


def code(source: str) -> Markup:
    """Code in colours."""
    if len(source) > MOST_CODE:
        return escape(source)
    # its expressions take quadratic time on lines of nothing but space
    source = "\n".join(line if line.strip() else "" for line in source.split("\n"))
    # Pygments escapes what it gets
    return Markup(highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)))  # noqa: S704


def text(cell: ReportedText) -> Markup:
    """A cell that is not code."""
    if cell.is_markdown and len(cell.source) <= MOST_MARKDOWN:
        return Markup(harmless_html(markdown(cell.source, cell.attachments)))  # noqa: S704 - just cleaned
    return Markup("<pre>{}</pre>").format(cell.source)


class Renderer(IPythonRenderer):
    """nbconvert's, for which a picture may be missing."""

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture; the words for it, where it should be attached and is not."""
        if url.startswith("attachment:") and not self.attachments.get(url.removeprefix("attachment:")):
            return str(escape(text))
        return str(super().image(text, url, title))


def markdown(source: str, attachments: Mapping[str, dict[str, str]]) -> str:
    """HTML of Markdown, which may hold any HTML."""
    renderer = Renderer(escape=False, exclude_anchor_links=True, attachments=dict(attachments))
    try:
        return str(MarkdownWithMath(renderer=renderer).render(source))
    except RecursionError:
        return str(Markup("<pre>{}</pre>").format(source))


def outputs(found: Sequence[Output]) -> Iterator[Markup]:
    """A cell's outputs, each as a block."""
    for output in found[:MOST_OUTPUTS]:
        kind = output.get("output_type")
        if kind == "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            yield block(f"stream {name}", ansi(text_of(output.get("text"))))
        elif kind == "error":
            yield block("error", ansi(traceback(output)))
        else:
            yield display({mime: value_of(mime, value) for mime, value in bundle_of(output).items()})
    if len(found) > MOST_OUTPUTS:
        yield block("note", escape(f"{len(found) - MOST_OUTPUTS} more outputs are in the notebook."))


def value_of(mime: str, value: object) -> object:
    """A bundle's value, with the lines that files may hold joined."""
    return value if "json" in mime else text_of(value)


def traceback(output: Output) -> str:
    """An error as the kernel shows it; what it is called, where there is no traceback."""
    lines = output.get("traceback")
    shown = "\n".join(map(text_of, lines)) if isinstance(lines, list | tuple) else ""
    return shown if shown.strip() else f"{text_of(output.get('ename'))}: {text_of(output.get('evalue'))}"


def display(bundle: Mapping[str, object]) -> Markup:
    """The richest of an output's forms that a page can show."""
    shown = harmless_data(bundle)
    html, plain = shown.get("text/html"), shown.get("text/plain")
    # of a chart that only a script would draw, a line says what it is; beside a picture the text says less
    if html is None and any(not mime.startswith("text/") for mime in bundle):
        plain = readable_text(bundle, MOST_CHARACTERS)
    if isinstance(html, str):
        return Markup('<div class="output html">{}</div>').format(Markup(html))  # noqa: S704 - harmless_data's
    if not plain and (value := bundle.get("application/json")) is not None:
        plain = json.dumps(value, indent=1, ensure_ascii=False)
    return block("text", ansi(str(plain or "")))


def block(kind: str, content: Markup) -> Markup:
    """A block of text."""
    return Markup('<pre class="output {}">{}</pre>').format(kind, content)


def ansi(content: str) -> Markup:
    """Text of a terminal: its colours, and the last state of lines that were written over; nothing else."""
    content = last_state(terminal_safe(shortened(content))).replace("\b", "").replace("\r", "\n")
    return Markup(ansi2html(content))  # noqa: S704 - which escapes the text first


def shortened(content: str) -> str:
    """The beginning and the end of what is too long."""
    if len(content) <= MOST_CHARACTERS:
        return content
    half = MOST_CHARACTERS // 2
    left_out = len(content) - 2 * half
    return f"{content[:half]}\n… {left_out} characters, which the notebook has, are left out here …\n{content[-half:]}"


def diff(what: str) -> Markup:
    """A difference: a sentence, or the lines of a diff, in colours."""
    kinds = {"-": "del", "+": "ins"}
    lines = [
        Markup("<{0}>{1}</{0}>").format(kinds.get(line[:1], "span"), line)
        for line in strip_escapes(what).strip("\n").split("\n")
        if line not in ("--- recorded", "+++ replayed")
    ]
    return Markup("\n").join(lines)


def sheet(picture: bytes) -> str:
    """Pictures side by side, as a ``data:`` URL."""
    return picture_url("image/png", b64encode(picture).decode()) or ""
