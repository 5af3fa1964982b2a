"""``replay --html``: a page in one file, which shows what happened and runs and loads nothing."""

from __future__ import annotations

import base64
import re
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode

from session_manager.replay.compare import Difference, Output
from session_manager.replay.report import MOST_CHARACTERS, MOST_OUTPUTS, render
from session_manager.replay.reported import Report, ReportedCell, ReportedText

from ..unit.test_harmless import HOSTILE
from ..unit.test_replay_compare import plot
from .conftest import ROOT, SECONDS, CommandLine

SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
# fmt: off
NOT_ALLOWED = frozenset((
    "script", "iframe", "frame", "frameset", "object", "embed", "applet", "link", "base", "form", "input", "button",
    "textarea", "select", "svg", "math", "video", "audio", "source", "track", "template", "slot", "portal", "dialog",
))
# fmt: on


class Page(HTMLParser):
    """What of a page could run, load, send or deceive; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.harm: list[str] = []
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in NOT_ALLOWED or "-" in tag:
            self.harm.append(tag)
        for name, value in attrs:
            if name == "src":
                self.pictures.append(value or "")
            if not is_harmless(tag, name, value or ""):
                self.harm.append(f"{tag} {name}={value}"[:100])

    def handle_data(self, data: str) -> None:
        self.text += data


def is_harmless(tag: str, name: str, value: str) -> bool:
    """Whether an attribute makes nothing run, load, or leave its place."""
    match name:
        case "src":
            return tag == "img" and bool(re.match(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,", value))
        case "href":
            return tag == "a" and bool(re.match(r"#cell-\d|https?:|mailto:", value))
        case "style":
            return not re.search(r"url|expression|@import|image-set|position|\\", value)
        case "http-equiv":
            return value == "Content-Security-Policy"
    return not name.startswith("on") and name not in ("srcset", "srcdoc", "action", "formaction", "background", "ping")


def report(*cells: ReportedCell | ReportedText, name: str = "n.ipynb") -> Report:
    when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return Report(name, when, "default", "docker", "ok", "good", "1 of 1 cells run.", 1.5, 50 << 20, ["a=1"], cells)


def cell(*outputs: Output, code: str = "1", recorded: list[Output] | None = None) -> ReportedCell:
    return ReportedCell(1, code, "ok", "good", 0.5, 40 << 20, outputs, recorded)


def display(data: Mapping[str, object]) -> Output:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def everywhere(text: str) -> Report:
    """A report in which the text is wherever a notebook or a container can put one."""
    outputs: list[Output] = [
        {"output_type": "stream", "name": "stdout", "text": text},
        {"output_type": "stream", "name": "stderr", "text": f"\x1b[31m{text}\x1b[0m"},
        {"output_type": "error", "ename": text, "evalue": text, "traceback": [text, f"\x1b[1;38;5;9m{text}"]},
        {"output_type": "error", "ename": text, "evalue": text, "traceback": []},
        *(display({mime: text}) for mime in ("text/html", "text/markdown", "text/latex", "text/plain")),
        *(display({mime: text}) for mime in ("image/svg+xml", "image/png", "application/javascript", text)),
        display({"application/json": {text: [text]}}),
        display({"text/html": [text, text], "text/plain": [text]}),
    ]
    return report(
        ReportedText(text, is_markdown=True, attachments={text: {"image/png": text}}),
        ReportedText(text, is_markdown=False),
        ReportedCell(
            1, text, text, "bad", 1.0, 1, outputs, outputs, [Difference(text, f"\n-{text}\n+{text}", b"")], text
        ),
        name=text,
    )


@pytest.mark.parametrize("html", [*HOSTILE, SVG, '"><script>alert(1)</script>', "</pre><script>alert(1)</script>"])
def test_hostile_text_does_nothing_wherever_it_comes(html: str) -> None:
    page = Page(render(everywhere(html)))
    assert page.harm == []
    assert [page.tags.count(tag) for tag in ("html", "head", "body", "title", "style", "main")] == [1] * 6
    assert page.tags.count("meta") == 5


FRAGMENTS = (*HOSTILE, "`", "```", "\n", "\n\n", "[x](javascript:alert(1))", "![x](attachment:a)", "$", "|", "<", ">")
FRAGMENTS += (
    "&lt;script&gt;",
    "\x1b[31m",
    "\x1b[38;5;",
    "\r",
    "\b",
    "\ud800",
    "\0",
    "<!--",
    "-->",
    "]]>",
    '"',
    "'",
    "{{",
    "{%",
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_whatever_is_put_together_does_nothing(text: str) -> None:
    page = render(everywhere(text))
    assert Page(page).harm == []
    page.encode()


def test_the_page_allows_nothing_by_itself_either() -> None:
    page = render(report(cell()))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= set(policy[1].split("; "))
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert "://" not in page and "script" not in page.replace("This page runs no script", "")


def test_texts_are_as_a_terminal_would_show_them() -> None:
    page = Page(
        render(report(cell({"output_type": "stream", "name": "stdout", "text": "10 %\r20 %\r\n\x1b[2J\x1b[31mred<"})))
    )
    assert "20 %\nred<" in page.text and "10 %" not in page.text and "\x1b" not in page.text
    assert 'class="ansi-red-fg"' in render(report(cell({"output_type": "stream", "text": "\x1b[31mred"})))


def test_what_is_too_long_is_cut() -> None:
    long = f"begin{'x' * (3 * MOST_CHARACTERS)}end"
    many: list[Output] = [display({"text/plain": "y"})] * (MOST_OUTPUTS + 7)
    page = Page(render(report(cell({"output_type": "stream", "text": long}), cell(*many, code=long))))
    assert "characters, which the notebook has, are left out here" in page.text
    assert "7 more outputs are in the notebook" in page.text
    assert len(page.text) < 5 * MOST_CHARACTERS


@pytest.mark.parametrize("piece", [" \n", "\x0c\n", "\\begin{a}", "[", "![", "**a*", "`", "<a b='", "\x1b[31m", "\r"])
def test_no_text_takes_for_ever(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    begin = time.monotonic()
    for size in (20_000, 50_000, 100_000):
        prose = ReportedText(text[:size], is_markdown=True)
        render(report(prose, cell({"output_type": "stream", "text": text[:size]}, code=text[:size])))
    assert time.monotonic() - begin < 30


def test_the_richest_form_that_is_harmless_is_shown() -> None:
    table = "<table class='dataframe'><tr><td>7</td></tr></table>"
    shown = render(report(cell(display({"text/html": table, "text/plain": "plain words"}))))
    assert "<td>7</td>" in shown and "plain words" not in shown
    chart: dict[str, object] = {"text/html": "<div></div><script>draw()</script>", "image/png": plot()}
    assert Page(render(report(cell(display(chart))))).pictures == [f"data:image/png;base64,{plot()}"]
    vector = Page(render(report(cell(display({"image/svg+xml": SVG, "text/plain": "<Figure>"})))))
    assert vector.harm == [] and base64.b64decode(vector.pictures[0].partition(",")[2]).decode() == SVG
    widget = {"application/vnd.plotly.v1+json": {"data": [1] * 1000}, "text/plain": "Figure()"}
    assert "[application/vnd.plotly.v1+json]" in Page(render(report(cell(display(widget))))).text
    assert '"a": 5' in Page(render(report(cell(display({"application/json": {"a": 5}}))))).text


def test_pictures_of_markdown_are_shown() -> None:
    text = ReportedText("# Title\n\n![p](attachment:p.png)", True, {"p.png": {"image/png": plot()}})
    page = Page(render(report(text)))
    assert page.harm == [] and "h1" in page.tags and len(page.pictures) == 1


def write(path: Path, *cells: NotebookNode) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)


def test_a_hostile_notebook(cli: CommandLine) -> None:
    shows = "from IPython.display import HTML, Markdown, SVG, display\n"
    shows += "\n".join(f"display(HTML({html!r}), Markdown({html!r}))\nprint({html!r})" for html in HOSTILE)
    write(
        cli.folder / "<img src=x onerror=alert(1)>.ipynb",
        nbformat.v4.new_markdown_cell("\n\n".join(HOSTILE)),
        nbformat.v4.new_raw_cell("\n\n".join(HOSTILE)),
        nbformat.v4.new_code_cell(shows),
        nbformat.v4.new_code_cell(f"display(SVG({SVG!r}))\nraise ValueError({HOSTILE[0]!r})"),
    )
    done = cli("replay", "<img src=x onerror=alert(1)>.ipynb", "--html", "page.html", "--set", "a=<script>")
    assert done.returncode == 1 and "Report:   page.html" in done.stdout
    page = Page((cli.folder / "page.html").read_text())
    assert page.harm == []
    for shown in ("<img src=x onerror=alert(1)>.ipynb", "FAILED", "3 of 3 cells run, 1 failed.", "a=<script>"):
        assert shown in page.text
    assert "ValueError" in page.text and HOSTILE[0] in page.text
    assert any(url.startswith("data:image/svg+xml") for url in page.pictures)


def test_recorded_is_beside_replayed_where_they_differ(cli: CommandLine) -> None:
    image = f"import base64\nfrom IPython.display import Image\nImage(base64.b64decode({plot()!r}))"
    first = nbformat.v4.new_code_cell("print('as before')", execution_count=1)
    first.outputs = [nbformat.v4.new_output("stream", text="as before\n")]
    second = nbformat.v4.new_code_cell("print('now')", execution_count=2)
    second.outputs = [nbformat.v4.new_output("stream", text="in those days\n")]
    shown = "<IPython.core.display.Image object>"
    third = nbformat.v4.new_code_cell(image, execution_count=3)
    third.outputs = [nbformat.v4.new_output("execute_result", {"image/png": plot(90), "text/plain": shown})]
    skipped = nbformat.v4.new_code_cell("never()", metadata={"tags": ["skip"]})
    write(cli.folder / "n.ipynb", first, second, third, skipped)
    done = cli("replay", "n.ipynb", "--check", "--html", "deep/page.html")
    assert done.returncode == 1, done.stderr
    content = (cli.folder / "deep/page.html").read_text()
    page = Page(content)
    articles = [Page(part) for part in content.split("<article ")[1:]]
    assert ["Recorded" in one.text and "Replayed" in one.text for one in articles] == [False, True, True, False]
    assert articles[0].text.count("as before") == 2  # in the code, and once put out
    assert "in those days" in articles[1].text and "-in those days" in articles[1].text and "+now" in articles[1].text
    recorded, replayed, sheet = articles[2].pictures
    assert (recorded, replayed) == tuple(f"data:image/png;base64,{plot(height)}" for height in (90, 40))
    (written,) = (cli.folder / "n.out_files").glob("*compared*")
    assert base64.b64decode(sheet.partition(",")[2]) == written.read_bytes()
    assert "1 of 3 put out what was recorded" in page.text and "skipped" in articles[3].text
    assert page.text.count(" MiB") == 4  # of three cells, and the most


def test_ctrl_c_writes_the_page(cli: CommandLine) -> None:
    (cli.folder / "n.py").write_text("# %%\n1\n# %%\nprint('begun', flush=True)\nimport time\ntime.sleep(300)\n# %%\n2")
    with cli.start("replay", "n.py", "--html", "n.html") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("[1/3]")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    text = Page((cli.folder / "n.html").read_text()).text
    assert "STOPPED" in text and "stopped by Ctrl-C" in text and "not run" in text
    assert [path.name for path in cli.folder.iterdir() if path.name.endswith(".new")] == []


def test_what_is_missing_for_a_page_is_said_before_anything_runs(cli: CommandLine) -> None:
    (cli.folder / "lacking").mkdir()
    (cli.folder / "lacking/jinja2.py").write_text("raise ModuleNotFoundError('No module', name='jinja2')")
    (cli.folder / "n.py").write_text(f"open({str(cli.folder / 'ran')!r}, 'w')")
    done = cli("replay", "n.py", "--html", "n.html", PYTHONPATH=f"{cli.folder / 'lacking'}:{ROOT}")
    assert done.returncode == 125
    assert "needs jinja2" in done.stderr and "pip install 'docker-interpreter[notebook]'" in done.stderr
    assert not (cli.folder / "ran").exists() and not (cli.folder / "n.out.ipynb").exists()
    assert cli("replay", "n.py", PYTHONPATH=f"{cli.folder / 'lacking'}:{ROOT}").returncode == 0
