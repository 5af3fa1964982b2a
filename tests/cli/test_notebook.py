"""Reading notebooks and scripts, and recording what cells put out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from session_manager.errors import NotebookError
from session_manager.execution import Execution, Status
from session_manager.notebook import (
    attached_files,
    parse_notebook,
    parse_script,
    read_notebook,
    record,
    write_notebook,
)
from session_manager.outputs import OutputLog
from session_manager.protocol import Cell

CODE: dict[str, Any] = {
    "cell_type": "code",
    "source": ["a = 1\n", "a"],
    "metadata": {},
    "outputs": [],
    "execution_count": None,
}


def notebook_text(minor: int = 5, metadata: object = None, *cells: dict[str, Any]) -> str:
    content = {"nbformat": 4, "nbformat_minor": minor, "metadata": metadata or {}, "cells": cells}
    return json.dumps(content)


def cells_of(script: str) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in parse_script(script).cells]


@pytest.mark.parametrize(
    ("script", "cells"),
    [
        ("", []),
        ("x = 1\n", [("code", "x = 1")]),
        ("x = 1\n# %%\ny = 2\n\n\n#%% second\nz", [("code", "x = 1"), ("code", "y = 2"), ("code", "z")]),
        ("#!/usr/bin/env python3\n# licence\n\n# %%\nx", [("code", "x")]),
        ("# %%\n# only a comment\n# %%\n\n", [("code", "# only a comment")]),
        ("# %% [markdown]\n# # Title\n#\n# text\n", [("markdown", "# Title\n\ntext")]),
        ("# %% [raw]\n# raw\n", [("raw", "raw")]),
        ("# %%time\nx\n#%%%\n", [("code", "# %%time\nx\n#%%%")]),
        ("    # %%\nx\f\ny", [("code", "    # %%\nx\f\ny")]),
    ],
)
def test_script(script: str, cells: list[tuple[str, str]]) -> None:
    assert cells_of(script) == cells


def test_script_is_a_valid_notebook_with_tags() -> None:
    notebook = parse_script('# %% a title tags=["skip", "skip", 5, "a,b"]\nx\n# %% tags=[broken]\ny')
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5
    assert [cell.metadata.get("tags") for cell in notebook.cells] == [["skip", "5"], None]


@pytest.mark.parametrize("minor", [0, 2, 4, 5])
def test_older_notebooks_are_upgraded_and_keep_their_metadata(minor: int) -> None:
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "custom": {"a": [1]}}
    notebook = parse_notebook(notebook_text(minor, metadata, CODE, CODE))
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5
    assert notebook.metadata == metadata
    first, second = notebook.cells
    assert first.source == "a = 1\na"
    assert first.id != second.id


def test_notebook_of_version_3() -> None:
    cell = {"cell_type": "code", "input": "1", "language": "python", "outputs": []}
    text = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": [cell]}]}
    notebook = parse_notebook(json.dumps(text))
    nbformat.validate(notebook)
    assert notebook.cells[0].source == "1"


def test_cell_ids_that_are_there_twice_are_made_unique() -> None:
    notebook = parse_notebook(notebook_text(5, None, {**CODE, "id": "same"}, {**CODE, "id": "same"}))
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == 2


@pytest.mark.parametrize(
    "text", ["", "no JSON", "1", "[]", "{}", '{"nbformat": 4}', notebook_text(5, None, {"cell_type": "code"})]
)
def test_what_is_no_notebook(text: str) -> None:
    with pytest.raises(NotebookError, match="no (valid )?notebook"):
        parse_notebook(text)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.ipynb", None, "No such file"),
        ("latin.py", "ä".encode("latin-1"), "no UTF-8"),
        ("table.csv", b"a,b", "neither a notebook"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NotebookError, match=sentence):
        read_notebook(tmp_path / name)


def attached(folder: Path, files: object) -> list[str]:
    notebook = parse_notebook(notebook_text(5, {"docker_interpreter": {"files": files}}))
    return [file.name for file in attached_files(notebook, folder)]


def test_attached_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").touch()
    assert attached(tmp_path, ["data/a.csv", "./data//a.csv", "data/../data/a.csv"]) == ["data/a.csv"] * 3
    assert attached(tmp_path, []) == []
    assert attached_files(parse_notebook(notebook_text()), tmp_path) == []


def test_attached_files_stay_in_the_folder_of_the_notebook(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").touch()
    (folder / "link").symlink_to(tmp_path / "secret")
    for name in (str(tmp_path / "secret"), "../secret", "x/../../secret", "link", ".."):
        with pytest.raises(NotebookError, match="not in its own folder"):
            attached(folder, [name])
    for name in ("missing", ".", "a\0b"):
        with pytest.raises(NotebookError, match="not there, or is no file"):
            attached(folder, [name])
    for files in ("data", [5], [""], {"a": 1}):
        with pytest.raises(NotebookError, match="malformed"):
            attached(folder, files)


def execution(status: Status, message: str | None, *messages: tuple[str, dict[str, object]]) -> Execution:
    cell = Cell("id", OutputLog(1 << 20))
    for msg_type, content in messages:
        cell.on_iopub(msg_type, content)
    return Execution(
        code="",
        status=status,
        error=cell.log.error,
        duration=1.0,
        started_at=0.0,
        execution_count=3,
        variables_kept=True,
        output_incomplete=False,
        message=message,
        notice=None,
        warning=None,
        files=(),
        files_complete=True,
        cell=cell,
        text_chars=1000,
    )


def test_record(tmp_path: Path) -> None:
    run = execution(
        "error",
        None,
        ("stream", {"name": "stdout", "text": "a\nb\n"}),
        ("display_data", {"data": {"application/json": {"a": [None]}, "text/plain": "x"}, "metadata": {}}),
        ("execute_result", {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}),
        ("error", {"ename": "E", "evalue": "v", "traceback": ["t"]}),
    )
    notebook = parse_script("x")
    record(notebook.cells[0], run)
    write_notebook(notebook, tmp_path / "new" / "out.ipynb")
    written = nbformat.read(tmp_path / "new" / "out.ipynb", as_version=4)
    nbformat.validate(written)
    assert written.cells[0].execution_count == 3
    kinds = [output.output_type for output in written.cells[0].outputs]
    assert kinds == ["stream", "display_data", "execute_result", "error"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.ipynb"]


@pytest.mark.parametrize("status", ["killed", "out_of_memory", "died", "interrupted"])
def test_cell_that_was_ended_shows_so_in_the_notebook(status: Status) -> None:
    notebook = parse_script("x")
    record(notebook.cells[0], execution(status, "It was ended.", ("stream", {"name": "stdout", "text": "a"})))
    nbformat.validate(notebook)
    stream, error = notebook.cells[0].outputs
    assert stream.text == "a"
    assert error.output_type == "error"
    assert error.evalue == "It was ended."
