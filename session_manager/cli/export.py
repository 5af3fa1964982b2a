"""The command ``sessions export``: what ran in a session, as a notebook, a page or the journal itself."""

# mypy: untyped-calls-exclude="nbformat"

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from ..errors import NotebookError
from ..journal import Journal, journal_content, read_session_journal
from ..journal_notebook import notebook_of
from ..notebook import write_notebook
from ..notebook_page import notebook_page
from ..outputs import strip_escapes
from ..replacing import replacing
from ..settings import Settings
from .files import files_of

STANDARD_OUTPUT = Path("-")
SUFFIXES = (".ipynb", ".html", ".jsonl")


async def export(settings: Settings, key: str, output: Path, *, owner: str, html: bool) -> int:
    """Write what ran in the session, whether or not that runs; the kind is what the file's name says.

    ``html``: a page beside the notebook. Nothing is started, and what is there of these names is replaced.

    :raises NotebookError: no cell has run in it, or what makes a page is missing.
    :raises SandboxError: there is no such session, or its journal can't be read.
    :raises OSError: a file can't be written.
    """
    async with files_of(settings, key, owner) as files:
        journal = await read_session_journal(files, settings.limits)
        if not journal.cells:
            raise NotebookError(
                f"The session {key!r} has no journal of a cell.",
                "No cell has run in it, or `limits.journal_bytes` is null.",
            )
        if output.suffix == ".jsonl":
            with replacing(output) as file:
                async for piece in journal_content(files, settings.limits):
                    file.write(piece)
            print(strip_escapes(f"Journal: {output} ({count(journal)})"))
            return 0
    write(journal, key, output, html=html)
    return 0


def write(journal: Journal, key: str, output: Path, *, html: bool) -> None:
    """The notebook, the page, or both."""
    notebook = notebook_of(journal, key=key)
    if output == STANDARD_OUTPUT:
        sys.stdout.write(nbformat.writes(notebook) + "\n")
        return
    page = output.with_suffix(".html") if html or output.suffix == ".html" else None
    content = None if page is None else notebook_page(notebook, key)
    if output.suffix == ".ipynb":
        write_notebook(notebook, output)
        print(strip_escapes(f"Notebook: {output} ({count(journal)})"))
    if page is not None and content is not None:
        with replacing(page) as file:
            file.write(content.encode())
        print(strip_escapes(f"Page: {page} ({count(journal)})"))


def count(journal: Journal) -> str:
    """How many cells there are, in words."""
    return f"{len(journal.cells)} cell{'' if len(journal.cells) == 1 else 's'}"
