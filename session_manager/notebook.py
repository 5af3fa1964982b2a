"""Notebooks and scripts with ``# %%`` cells: read, and written back with what their cells put out."""

# mypy: untyped-calls-exclude="nbformat"

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.validator import normalize

from .errors import NotebookError
from .execution import Execution
from .journal import read_journal
from .journal_notebook import METADATA_KEY, notebook_of
from .outputs import Error, to_nbformat
from .replacing import replacing

SCRIPT_SUFFIXES = (".py", ".txt", "")
# The percent format, as Jupytext, VS Code, Spyder and PyCharm read it.
CELL_MARKER = re.compile(r"#\s?%%(?:\s+(?P<rest>.*))?")
NO_CODE = re.compile(r"(?:\s*+(?:#.*+)?\n?)*+")
TYPE = re.compile(r"\[(markdown|md|raw|code)\]", re.IGNORECASE)
TAGS = re.compile(r"\btags=(\[[^\]]*\])")
CELL_TYPES = {"markdown": "markdown", "md": "markdown", "raw": "raw", "code": "code"}
NOTHING_TO_SHOW = {
    "killed": "Killed",
    "out_of_memory": "OutOfMemory",
    "died": "Died",
    "interrupted": "Interrupted",
    "container_removed": "ContainerRemoved",
    "engine_unreachable": "EngineUnreachable",
}
"""Names for the error outputs of cells that ended without raising anything."""


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A file that a notebook needs beside it."""

    path: Path
    """Where it is on this machine."""
    name: str
    """Where it belongs in the session's working directory, with slashes."""


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in an .ipynb file, or the cells of a script or of a session's journal, as nbformat 4.5.

    :raises NotebookError: it can't be read, or is neither.
    """
    if path.suffix == ".jsonl":
        return notebook_of(read_journal(path), key=path.stem)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NotebookError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise NotebookError(f"{path} can't be read: it is no UTF-8 text.") from error
    if path.suffix == ".ipynb":
        return parse_notebook(text, str(path))
    if path.suffix in SCRIPT_SUFFIXES:
        return parse_script(text)
    raise NotebookError(f"{path} is neither a notebook (.ipynb), a Python script (.py) nor a journal (.jsonl).")


def parse_notebook(text: str, name: str = "The text") -> NotebookNode:
    """A notebook of any version, upgraded; its metadata stays as it is.

    :raises NotebookError: it is no valid notebook.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ids of cells that are missing, or there twice, are put right here
            notebook = nbformat.reader.reads(text)
            metadata = dict(notebook.metadata) if notebook.nbformat == 4 else None
            notebook = nbformat.convert(notebook, 4)
            if notebook.nbformat_minor < 5:
                notebook = nbformat.v4.upgrade(notebook)
            if metadata is not None:
                notebook.metadata = metadata  # without the upgrade's own remark
            _, notebook = normalize(notebook)
            nbformat.validate(notebook)
            upgraded: NotebookNode = nbformat.from_dict(notebook)
    except nbformat.ValidationError as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise NotebookError(f"{name} is no valid notebook: {reason[:200]}.") from error
    except Exception as error:  # nbformat's reader fails in many ways on JSON that is no notebook
        raise NotebookError(f"{name} is no notebook: its JSON has not the form of one.") from error
    return upgraded


def parse_script(text: str) -> NotebookNode:
    """The cells of a script: each begins at a line ``# %%``. One without such lines is a single cell.

    ``# %% [markdown]`` begins text, in comments; ``# %% tags=["skip"]`` gives a cell tags.
    """
    notebook: NotebookNode = nbformat.v4.new_notebook()
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for marker, source in _split(text):
        found = TYPE.search(marker or "")
        kind = CELL_TYPES[found[1].lower()] if found else "code"
        if kind == "code":
            if not source.strip() or (marker is None and NO_CODE.fullmatch(source)):
                continue  # nothing, or only what a script begins with: #!, its encoding, a licence
            cell = nbformat.v4.new_code_cell(source)
        elif kind == "markdown":
            cell = nbformat.v4.new_markdown_cell(_uncommented(source))
        else:
            cell = nbformat.v4.new_raw_cell(_uncommented(source))
        if tags := _tags(marker):
            cell.metadata["tags"] = tags
        notebook.cells.append(cell)
    return notebook


def _split(text: str) -> Iterator[tuple[str | None, str]]:
    """What follows the ``# %%`` of each cell, and its source; None for what is before the first."""
    marker: str | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        if found := CELL_MARKER.fullmatch(line.rstrip()):
            yield marker, "\n".join(lines).strip("\n")
            marker, lines = found["rest"] or "", []
        else:
            lines.append(line)
    yield marker, "\n".join(lines).strip("\n")


def _uncommented(source: str) -> str:
    return "\n".join(re.sub(r"^# ?", "", line) for line in source.split("\n"))


def _tags(marker: str | None) -> list[str]:
    found = TAGS.search(marker or "")
    try:
        tags = json.loads(found[1]) if found else []
    except ValueError:
        return []
    return [tag for tag in dict.fromkeys(map(str, tags)) if tag and "," not in tag]


def attached_files(notebook: NotebookNode, folder: Path) -> list[AttachedFile]:
    """The files that the notebook's metadata names (``docker_interpreter.files``), relative to its folder.

    :raises NotebookError: the list is malformed, a file is missing, or one lies outside the folder.
    """
    section = notebook.metadata.get(METADATA_KEY, {})
    names = section.get("files", []) if isinstance(section, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise NotebookError(
            f"The notebook's metadata {METADATA_KEY!r} is malformed.",
            'It should look like {"files": ["data/table.csv"]}.',
        )
    root = folder.resolve()
    attached = []
    for name in names:
        # a notebook comes from anywhere: it must not be able to name this machine's other files
        normal = os.path.normpath(name)
        path = (root / normal).resolve() if "\0" not in name else root
        if Path(name).is_absolute() or ".." in Path(normal).parts or not path.is_relative_to(root):
            raise NotebookError(
                f"The notebook asks for the file {name!r}, which is not in its own folder.",
                "Put the file beside the notebook, and name it relative to that.",
            )
        if not path.is_file():
            raise NotebookError(f"The notebook asks for the file {name!r}, which is not there, or is no file.")
        attached.append(AttachedFile(path, Path(normal).as_posix()))
    return attached


def record(cell: NotebookNode, execution: Execution) -> None:
    """Put what a cell put out, and its execution count, into the notebook, as Jupyter does.

    A cell that was ended rather than raising gets an error output that says so.
    """
    outputs = [to_nbformat(output) for output in execution.outputs]
    # IPython itself prints some errors, such as an unknown magic's, and has nothing else to show of them
    told = ("error",) if execution.status != "error" else ("error", "stream")
    if execution.status != "ok" and not any(output["output_type"] in told for output in outputs):
        message = execution.message or ""
        error = execution.error or Error(NOTHING_TO_SHOW.get(execution.status, "Error"), message, (message,))
        outputs.append(to_nbformat(error))
    cell.outputs = [nbformat.from_dict(output) for output in outputs]
    cell.execution_count = execution.execution_count


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write the notebook, wholly or not at all.

    :raises OSError: it can't be written.
    """
    content = nbformat.writes(notebook)
    with replacing(path) as file:
        file.write((content if content.endswith("\n") else content + "\n").encode())
