"""What a container says of a cell's files is taken for hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager import ChangedFile
from session_manager.changed_files import MOST_FILES, MOST_TEXT, from_door, from_reply
from session_manager.execution import files_line


def reply(*entries: Any, complete: Any = True) -> dict[str, object]:
    return {"files": json.dumps(entries), "files_complete": complete}


def test_what_a_kernel_says() -> None:
    found = from_reply(reply(["out/b.png", 12, "new"], ["a\udcff", 0, "changed"]))
    assert found.files == (ChangedFile("a\udcff", 0, "changed"), ChangedFile("out/b.png", 12, "new"))
    assert found.complete
    assert [file.mime for file in found.files] == ["application/octet-stream", "image/png"]
    assert not from_reply(reply(complete=False)).complete


@pytest.mark.parametrize(
    "entry",
    [
        5,
        [],
        ["a", 1],
        ["", 1, "new"],
        ["/etc/passwd", 1, "new"],
        ["a/../../b", 1, "new"],
        ["a//b", 1, "new"],
        ["a\0b", 1, "new"],
        ["x" * 9000, 1, "new"],
        ["a", -1, "new"],
        ["a", True, "new"],
        ["a", 1.5, "new"],
        ["a", 10**30, "new"],
        ["a", 1, "gone"],
        ["a", 1, ["new"]],
        [["a"], 1, "new"],
    ],
)
def test_what_is_malformed_is_left_out_and_told(entry: Any) -> None:
    found = from_reply(reply(["fine", 1, "new"], entry))
    assert (found.files, found.complete) == ((ChangedFile("fine", 1, "new"),), False)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"files": None}, {"files": "{"}, {"files": "[" * 100_000}, {"files": "{}"}, {"files": [["a", 1, "new"]]}],
)
def test_no_list_at_all(metadata: dict[str, object]) -> None:
    assert from_reply({"files_complete": True, **metadata}) == from_reply({})


def test_lists_without_end() -> None:
    found = from_reply(reply(*([f"f{number}", 1, "new"] for number in range(MOST_FILES + 1))))
    assert len(found.files) == MOST_FILES and not found.complete
    assert not from_reply({"files": json.dumps([["x" * MOST_TEXT, 1, "new"]])}).files


def test_what_the_file_door_says() -> None:
    entries = [{"path": "b", "size": 2, "new": True}, {"path": "a", "size": 1}, {"path": "../c", "size": 1}, None]
    found = from_door({"entries": entries, "truncated": False})
    assert found.files == (ChangedFile("a", 1, "changed"), ChangedFile("b", 2, "new"))
    assert not found.complete
    assert from_door({"entries": entries[:2], "truncated": False}).complete
    assert not from_door({"entries": entries[:2], "truncated": True}).complete
    assert from_door({"entries": {}}) == from_door({})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["path", "size", "new"]), inner),
    max_leaves=10,
)


@given(JSON, JSON)
def test_anything_can_be_said(files: Any, complete: Any) -> None:
    for found in (
        from_reply({"files": files, "files_complete": complete}),
        from_reply({"files": json.dumps(files), "files_complete": complete}),
        from_door({"entries": files, "truncated": complete}),
    ):
        assert all(isinstance(file, ChangedFile) for file in found.files)
        files_line(found.files)


def test_the_line_that_models_read() -> None:
    assert files_line(()) is None
    files = [ChangedFile("out/plot.png", 12_288, "new"), ChangedFile("b\n\x1b[2J", 3, "changed")]
    assert files_line(files) == "Files: new out/plot.png (12 KiB), changed 'b\\n\\x1b[2J' (3 bytes)"
    many = [ChangedFile(f"f{number}", 1, "new") for number in range(54)]
    line = files_line(many)
    assert line is not None and line.endswith("new f19 (1 bytes), and 34 more")


@pytest.mark.parametrize("letter", ["x", "\n", "\udcff", "🙂"])
def test_the_line_is_bounded_however_long_names_are(letter: str) -> None:
    line = files_line([ChangedFile(f"out/{letter * 8000}/{number}.csv", 1, "new") for number in range(30)])
    assert line is not None and len(line) < 6000
    assert line.isprintable()
    assert "out/" in line and "…" in line and "0.csv" in line
