"""``sessions export``: what ran, as a notebook, a page and a journal, which all run again."""

from __future__ import annotations

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

from .conftest import CommandLine

PLOT = """
import base64
from IPython.display import Image
Image(base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="))
"""


@pytest.fixture
def ran(alone: CommandLine) -> CommandLine:
    """A session ``chat`` in which three cells ran, each from a process of its own."""
    assert alone("run", "-s", "chat", "-c", "x = 40\nprint('started')").returncode == 0
    assert alone("run", "-s", "chat", "-c", "1/0").returncode == 1
    assert alone("run", "-s", "chat", "-c", f"{PLOT}").returncode == 0
    return alone


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_a_notebook(ran: CommandLine) -> None:
    done = ran("sessions", "export", "chat", "-o", "out/analysis.ipynb")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Notebook: out/analysis.ipynb (3 cells)\n"
    notebook = read(ran.folder / "out" / "analysis.ipynb")
    assert notebook.nbformat_minor == 5
    heading, first, second, third = notebook.cells
    assert "docker-interpreter run" in heading.source.replace("\\", "")
    assert first.outputs[0].text == "started\n"
    assert second.outputs[0].ename == "ZeroDivisionError"
    assert third.outputs[0].data["image/png"].startswith("iVBORw0KGgo")
    assert [cell.execution_count for cell in (first, second, third)] == [1, 2, 3]


def test_it_runs_again_in_jupyter_s_own_client_and_here(ran: CommandLine) -> None:
    assert ran("sessions", "export", "chat", "-o", "again.ipynb").returncode == 0
    notebook = read(ran.folder / "again.ipynb")
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert notebook.cells[1].outputs[0].text == "started\n"
    checked = ran("replay", "again.ipynb", "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "3 of 3 cells put out what was recorded" in checked.stdout


def test_the_journal_itself_can_be_replayed(ran: CommandLine) -> None:
    done = ran("sessions", "export", "chat", "-o", "chat.jsonl")
    assert done.stdout == "Journal: chat.jsonl (3 cells)\n"
    events = [json.loads(line)["event"] for line in (ran.folder / "chat.jsonl").read_text().splitlines() if line]
    assert events.count("cell") == events.count("end") == 3
    checked = ran("replay", "chat.jsonl", "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert len(read(ran.folder / "chat.out.ipynb").cells) == 4


def test_a_page_beside_the_notebook_or_alone(ran: CommandLine) -> None:
    done = ran("sessions", "export", "chat", "--html")
    assert done.stdout == "Notebook: chat.ipynb (3 cells)\nPage: chat.html (3 cells)\n"
    page = (ran.folder / "chat.html").read_text()
    assert "ZeroDivisionError" in page and "data:image/png;base64,iVBOR" in page and "<script" not in page
    (ran.folder / "chat.ipynb").unlink()
    done = ran("sessions", "export", "chat", "-o", "chat.html")
    assert done.stdout == "Page: chat.html (3 cells)\n"
    assert not (ran.folder / "chat.ipynb").exists()


def test_a_session_that_has_ended(ran: CommandLine) -> None:
    assert ran("sessions", "stop", "chat").returncode == 0
    done = ran("sessions", "export", "chat", "-o", "-")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["cells"]) == 4
    listed = ran("sessions", "list", "--json")
    assert json.loads(listed.stdout) == [], "nothing was started for it"


def test_what_can_t_be_exported(alone: CommandLine) -> None:
    done = alone("sessions", "export", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no session 'nobody'" in done.stderr
    (alone.folder / "a.txt").write_text("x")
    assert alone("files", "empty", "put", "a.txt", ".").returncode == 0
    done = alone("sessions", "export", "empty")
    assert done.returncode == 1 and "no journal" in done.stderr
    assert list(alone.folder.glob("*.ipynb")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "a.pdf"], "should end in .ipynb, .html or .jsonl"),
        (["-o", "a.jsonl", "--html"], "--html belongs to a notebook or page"),
        (["-o", "-", "--html"], "--html belongs to a notebook or page"),
    ],
)
def test_what_makes_no_sense(cli: CommandLine, arguments: list[str], words: str) -> None:
    done = cli("sessions", "export", "k", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_a_file_that_can_t_be_written_leaves_what_was_there(ran: CommandLine) -> None:
    (ran.folder / "folder.ipynb").mkdir()
    done = ran("sessions", "export", "chat", "-o", "folder.ipynb")
    assert done.returncode == 1 and "folder.ipynb" in done.stderr
    assert [path.name for path in ran.folder.iterdir() if path.name.endswith(".new")] == []


def test_keys_that_are_no_file_names(alone: CommandLine) -> None:
    key = "../user 1/chat:7"
    assert alone("run", "-s", key, "-c", "1").returncode == 0
    assert alone("sessions", "export", key).stdout == "Notebook: user-1-chat-7.ipynb (1 cell)\n"
