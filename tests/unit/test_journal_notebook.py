"""A journal as a notebook, and notebooks as pages in which nothing runs."""

from __future__ import annotations

import base64
import re
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from session_manager.journal import journal_of
from session_manager.journal_notebook import escaped, notebook_of
from session_manager.notebook_page import notebook_page

from .test_harmless import FORBIDDEN, HOSTILE
from .test_journal import KERNEL, cell, death, end, lines

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
STDOUT = {"event": "output", "cell": "a", "type": "stream", "content": {"name": "stdout", "text": "hello\n"}}


def notebook(*records: dict[str, Any], key: str = "chat") -> nbformat.NotebookNode:
    made = notebook_of(journal_of(lines(*records)), key=key)
    nbformat.validate(made)
    assert (made.nbformat, made.nbformat_minor) == (4, 5)
    return made


def test_it_says_when_and_on_what_it_ran_and_who_asked() -> None:
    made = notebook(KERNEL, cell("a", by="user 7"), STDOUT, end("a"))
    heading, code = made.cells
    assert heading.cell_type == "markdown"
    for part in ("Session chat", "1970-01-01 00:00:02 UTC", "Image: i, Python 3.12", "user 7"):
        assert part in heading.source
    assert code.source == "a" and code.execution_count == 1
    assert code.outputs == [{"output_type": "stream", "name": "stdout", "text": "hello\n"}]
    assert code.metadata.docker_interpreter == {"status": "ok", "asked_by": "user 7"}
    assert code.metadata.execution["iopub.execute_input"] == "1970-01-01T00:00:02Z"
    assert made.metadata.language_info.version == "3.12"


@pytest.mark.parametrize(
    ("records", "name", "tags"),
    [
        ([end("a", "error", ename="ValueError", evalue="no")], "ValueError", ["raises-exception"]),
        ([end("a", "error", ename="KeyboardInterrupt", evalue="")], "KeyboardInterrupt", ["skip-execution"]),
        ([death(asked=True)], "Killed", ["skip-execution"]),
        ([death(out_of_memory=True)], "OutOfMemory", ["skip-execution"]),
        ([death(asked=False)], "Died", ["skip-execution"]),
        ([KERNEL], "ContainerRemoved", ["skip-execution"]),
        ([], "Unfinished", ["skip-execution"]),
    ],
)
def test_cells_that_failed_say_how(records: list[dict[str, Any]], name: str, tags: list[str]) -> None:
    code = notebook(KERNEL, cell("a"), *records).cells[1]
    assert code.outputs[-1].output_type == "error" and code.outputs[-1].ename == name
    assert code.metadata.tags == tags


def test_a_new_python_between_cells_is_told() -> None:
    made = notebook(KERNEL, cell("a"), end("a"), death(), {**KERNEL, "image": "newer"}, cell("b"), end("b"))
    kinds = [each.cell_type for each in made.cells]
    assert kinds == ["markdown", "code", "markdown", "code"]
    assert "Python was started anew" in made.cells[2].source and "newer" in made.cells[2].source


def test_what_is_missing_is_told() -> None:
    made = notebook({"event": "continued", "image": "i", "python": "3"}, {"event": "lost", "records": 3}, cell("a"))
    assert "Older cells are missing" in made.cells[0].source
    assert "3 records are missing" in made.cells[0].source
    left = notebook(KERNEL, cell("a"), end("a", left_out=12345)).cells[1]
    assert "12345 bytes" in left.outputs[0].text


def test_two_exports_are_the_same() -> None:
    records = (KERNEL, cell("a"), STDOUT, end("a"))
    assert nbformat.writes(notebook(*records)) == nbformat.writes(notebook(*records))


def test_names_are_no_markup() -> None:
    source = (
        notebook(KERNEL, cell("a", by="<script>alert(1)</script>"), key="[x](javascript:y)\n# *big*").cells[0].source
    )
    assert not re.search(r"(?<!\\)[<\[*]", source), "each is escaped"
    assert escaped("a_b\n\n# c") == r"a\_b \# c"


@pytest.mark.parametrize("html", HOSTILE)
def test_nothing_runs_in_a_page(html: str) -> None:
    data = {"text/html": html, "text/markdown": html, "text/latex": html, "application/javascript": html}
    bundles = [{mime: value, "text/plain": html} for mime, value in data.items()]
    bundles.append({"application/vnd.jupyter.widget-view+json": {"model_id": html}, "text/plain": html})
    bundles.append({"image/png": html, "image/svg+xml": f"<svg>{html}</svg>"})
    outputs = [new_output("display_data", data=bundle, metadata={"image/png": {"width": html}}) for bundle in bundles]
    outputs.append(new_output("stream", text=html))
    outputs.append(new_output("error", ename=html, evalue=html, traceback=[html]))
    outputs.append(new_output("execute_result", data={"text/vnd.mermaid": html}, execution_count=1))
    code = new_code_cell(html, outputs=outputs, metadata={"tags": [html.replace(",", "")]})
    raw = new_raw_cell(html, metadata={"raw_mimetype": "text/html"})
    made = new_notebook(cells=[new_markdown_cell(html), code, raw], metadata={"title": html, "widgets": {"x": html}})
    page = notebook_page(made, html)
    # text is there as text, with its angle brackets escaped; the page's own style is not looked at
    body = re.sub(r"<style.*?</style>|<title>.*?</title>", "", page, flags=re.DOTALL).partition("<body")[2]
    tags = re.findall(r"<[a-zA-Z/!][^>]*>", body)
    forbidden = [word for word in FORBIDDEN if word not in ("id=", "jp-Cell", "</body")]
    assert not [tag for tag in tags if any(word.lower() in tag.lower() for word in forbidden)]
    assert page.count("</body>") == page.count("</html>") == 1


def test_a_page_needs_nothing_else() -> None:
    shown = new_output("display_data", data={"image/png": PNG, "text/plain": "<Figure>"})
    page = notebook_page(new_notebook(cells=[new_code_cell("plot()", outputs=[shown])]), "t")
    assert f'src="data:image/png;base64,{PNG}"' in page
    assert "Content-Security-Policy" in page
    assert not re.search(r"(?:src|href)=\"(?!data:image/|#)", page)
    assert "<script" not in page and "@import" not in page


def test_a_page_keeps_what_people_look_for() -> None:
    table = '<table border="1" class="dataframe"><tr><td>41</td></tr></table>'
    outputs = [
        new_output("execute_result", data={"text/html": table, "text/plain": "41"}, execution_count=1),
        new_output("error", ename="E", evalue="v", traceback=["\x1b[31mred\x1b[0m text"]),
    ]
    cells = [new_markdown_cell("# Title\n\n*some* text"), new_code_cell("x = 'text'", outputs=outputs)]
    page = notebook_page(new_notebook(cells=cells), "t")
    assert '<table border="1" class="dataframe">' in page
    assert re.search(r"<h1[^>]*>Title", page) and "<em>some</em>" in page
    assert 'class="ansi-red-fg"' in page
    assert '<span class="s1">' in page, "code is in colours"
