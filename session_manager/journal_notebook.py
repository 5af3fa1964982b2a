"""A session's journal as a notebook: what ran, what came out, when, and on what image."""

# mypy: untyped-calls-exclude="nbformat"

from __future__ import annotations

import re
from datetime import UTC, datetime

import nbformat
from nbformat import NotebookNode

from .journal import Journal, JournalCell, JournalStart
from .outputs import Error, to_nbformat

METADATA_KEY = "docker_interpreter"
NOT_AGAIN = ("interrupted", "killed", "out_of_memory", "died", "container_removed", "unfinished")
"""Cells that ended so did not come to an end by themselves: who runs the notebook again does not want to wait."""
ENDINGS = {
    "interrupted": ("KeyboardInterrupt", "The cell was interrupted."),
    "killed": ("Killed", "The cell did not react to interrupts, and was killed."),
    "out_of_memory": ("OutOfMemory", "The session needed more memory than its limit, and Python was ended."),
    "died": ("Died", "Python ended while the cell ran."),
    "container_removed": ("ContainerRemoved", "The session's container went while the cell ran."),
    "unfinished": ("Unfinished", "The cell was still running, or its container went while it ran."),
    "error": ("Error", "The cell failed."),
}


def notebook_of(journal: Journal, *, key: str) -> NotebookNode:
    """The journal as nbformat 4.5. It runs again, in Jupyter's own tools too.

    Cells that raised are tagged ``raises-exception``; cells that did not end by themselves ``skip-execution``.
    """
    notebook: NotebookNode = nbformat.v4.new_notebook()
    starts = [entry for entry in journal.entries if isinstance(entry, JournalStart)]
    python = starts[-1].python if starts else ""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
            | ({"version": python} if python else {}),
            METADATA_KEY: {"session": key, "image": starts[-1].image if starts else ""},
        }
    )
    notebook.cells.append(_text(_heading(journal, key)))
    running: JournalStart | None = None
    for entry in journal.entries:
        if isinstance(entry, JournalCell):
            notebook.cells.append(_code(entry))
        else:
            if running is not None and any(cell.cell_type == "code" for cell in notebook.cells):
                notebook.cells.append(_text(_restarted(entry, running)))
            running = entry
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same each time that it is exported
    return notebook


def _text(source: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_markdown_cell(source)
    return cell


def _heading(journal: Journal, key: str) -> str:
    cells = journal.cells
    lines = [f"# Session {escaped(key)}"]
    if cells:
        first, last = utc(cells[0].started_at), utc(cells[-1].ended_at or cells[-1].started_at)
        lines.append(f"{len(cells)} cells ran from {first} to {last}.")
    else:
        lines.append("No cell has run.")
    start = next((entry for entry in journal.entries if isinstance(entry, JournalStart)), None)
    if start is not None:
        lines.append(f"Image: {escaped(start.image)}, Python {escaped(start.python)}.")
    if asked := sorted({cell.asked_by for cell in cells if cell.asked_by}):
        shown = ", ".join(map(escaped, asked[:20]))
        lines.append(f"Asked for by: {shown}{', …' if len(asked) > 20 else ''}.")
    if journal.beginning_missing:
        lines.append("Older cells are missing: the journal's limit was reached.")
    if journal.lost:
        lines.append(f"{journal.lost} records are missing: they could not be written, for a full disk perhaps.")
    return "\n\n".join(lines)


def _restarted(start: JournalStart, before: JournalStart) -> str:
    line = f"**Python was started anew** at {utc(start.at)}: variables were gone, but for what had been saved of them."
    if (start.image, start.python) != (before.image, before.python):
        line += f" Image: {escaped(start.image)}, Python {escaped(start.python)}."
    return line


def _code(entry: JournalCell) -> NotebookNode:
    outputs = [to_nbformat(output) for output in entry.outputs]
    if entry.left_out:
        outputs.append(to_stderr(f"… {entry.left_out} bytes of output were left out of the journal …\n"))
    if entry.status != "ok" and not any(output["output_type"] == "error" for output in outputs):
        name, sentence = ENDINGS[entry.status]
        outputs.append(to_nbformat(entry.error or Error(name, sentence, (sentence,))))
    cell: NotebookNode = nbformat.v4.new_code_cell(entry.code, execution_count=entry.execution_count)
    cell.outputs = [nbformat.from_dict(output) for output in outputs]
    if entry.status in NOT_AGAIN:
        cell.metadata["tags"] = ["skip-execution"]
    elif entry.status == "error":
        cell.metadata["tags"] = ["raises-exception"]
    cell.metadata["execution"] = {"iopub.execute_input": iso(entry.started_at)} | (
        {} if entry.ended_at is None else {"shell.execute_reply": iso(entry.ended_at)}
    )
    cell.metadata[METADATA_KEY] = {"status": entry.status, "asked_by": entry.asked_by}
    return cell


def to_stderr(text: str) -> dict[str, object]:
    """A stream output, as nbformat has it."""
    return {"output_type": "stream", "name": "stderr", "text": text}


def utc(at: float) -> str:
    """A Unix time for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float) -> str:
    """A Unix time as notebooks' metadata have it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def escaped(text: str) -> str:
    """Text of unknown origin in Markdown, as it is: nothing in it becomes markup."""
    line = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&$:@-])", r"\\\1", line)
