"""Reading journals: hostile ones, and those of cells that ended in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager import Limits, NotebookError, journal, json_bound, read_journal
from session_manager.journal import JournalCell, JournalReader, JournalStart, journal_of

KERNEL = {"event": "kernel", "at": 1.0, "image": "i", "python": "3.12"}


def lines(*records: dict[str, Any]) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in records]


def cell(name: str, **fields: Any) -> dict[str, Any]:
    return {"event": "cell", "cell": name, "at": 2.0, "count": 1, "by": None, "code": name, **fields}


def end(name: str, status: str = "ok", **fields: Any) -> dict[str, Any]:
    return {"event": "end", "cell": name, "at": 3.0, "status": status, **fields}


def death(**fields: Any) -> dict[str, Any]:
    return {"event": "death", "at": 4.0, "signal": 9, "exit_code": None, "out_of_memory": False, **fields}


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ([end("a")], "ok"),
        ([end("a", "error", ename="E", evalue="v")], "error"),
        ([end("a", "error", ename="KeyboardInterrupt", evalue="")], "interrupted"),
        ([end("a", "aborted")], "error"),
        ([death(asked=False)], "died"),
        ([death(asked=True)], "killed"),
        ([death(asked=False, out_of_memory=True)], "out_of_memory"),
        ([KERNEL], "container_removed"),
        ([cell("b")], "container_removed"),
        ([], "unfinished"),
        ([end("a"), death(asked=False)], "ok"),
    ],
)
def test_how_cells_end(records: list[dict[str, Any]], status: str) -> None:
    assert journal_of(lines(KERNEL, cell("a"), *records)).cells[0].status == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["at", "image", "python", "cell", "count", "by", "code", "type", "content", "status", "ename", "evalue"]
FIELDS += ["left_out", "asked", "out_of_memory", "records"]
EVENTS = ["kernel", "continued", "cell", "output", "end", "death", "lost", "other"]
RECORDS = st.builds(
    lambda event, fields: {**fields, "event": event},
    st.sampled_from(EVENTS),
    st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["a", "stream"]), max_size=8),
)


@given(st.lists(RECORDS | JSON, max_size=8), st.binary(max_size=30), st.integers(1, 50))
def test_whatever_is_in_it_it_can_be_read(records: list[Any], noise: bytes, step: int) -> None:
    written = b"\n".join([*(json.dumps(record).encode() for record in records), noise, *lines(cell("last"))])
    read = journal_of(written[at : at + step] for at in range(0, len(written), step))
    assert read.cells[-1].code == "last"
    for entry in read.entries:
        if isinstance(entry, JournalCell):
            assert isinstance(entry.code, str) and list(entry.outputs) is not None
        else:
            assert isinstance(entry, JournalStart) and isinstance(entry.image, str)


def test_a_line_longer_than_any_record_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LONGEST_LINE", 1000)
    reader = JournalReader(1 << 16, 1 << 20)
    for _ in range(100):
        reader.feed(b"x" * 999)
    reader.feed(b"\n" + b"".join(lines(cell("after"))))
    assert [found.code for found in reader.journal().cells] == ["after"]


def test_a_line_that_holds_too_much_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bound, "MOST_VALUES", 500)
    reader = JournalReader(1 << 16, 1 << 20)
    reader.feed(b"".join(lines({**cell("before"), "more": [[]] * 1000}, cell("after"))))
    assert [found.code for found in reader.journal().cells] == ["after"]


def test_more_cells_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = JournalReader(1 << 16, 1 << 40)
    monkeypatch.setattr(journal, "MOST_CELLS", 3)
    reader._entries = type(reader._entries)(maxlen=3)
    reader.feed(b"".join(lines(*(cell(str(number)) for number in range(10)))))
    read = reader.journal()
    assert [found.code for found in read.cells] == ["7", "8", "9"] and read.beginning_missing
    assert len(reader._cells) == 3


def test_outputs_beyond_what_may_be_kept_are_counted() -> None:
    reader = JournalReader(1 << 16, 5000)
    output = {"event": "output", "cell": "a", "type": "stream", "content": {"name": "stdout", "text": "x" * 100}}
    reader.feed(b"".join(lines(cell("a"), *[output] * 1000, end("a"))))
    (found,) = reader.journal().cells
    assert found.left_out > 100_000 and found.status == "ok"


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="can't be read: No such file"):
        read_journal(tmp_path / "missing.jsonl")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n[]\n')
    with pytest.raises(NotebookError, match="is no journal of a session"):
        read_journal(tmp_path / "other.jsonl")
    (tmp_path / "one.jsonl").write_bytes(b"".join(lines(KERNEL, cell("a"), end("a"))))
    assert [found.code for found in read_journal(tmp_path / "one.jsonl", Limits()).cells] == ["a"]
