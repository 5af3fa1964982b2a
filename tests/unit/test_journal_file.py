"""What the kernel and the supervisor write down: bounded, and read back by the other side."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kernel_image.journal import Journal as Writer
from kernel_image.journal_file import FOLDER, NEWER, OLDER, JournalFile
from session_manager.journal import Journal, JournalCell, journal_of
from session_manager.outputs import Display, Result, Stream

from .supervised import Start, wait_until

PARENT = {"header": {"msg_id": "one"}, "metadata": {"asked_by": "somebody"}}


def frames(kind: str, content: dict[str, Any], cell: str = "one") -> list[bytes]:
    """A message as the kernel publishes it."""
    parts = [{"msg_type": kind}, {"msg_id": cell}, {}, content]
    return [kind.encode(), b"<IDS|MSG>", b"signature", *(json.dumps(part).encode() for part in parts)]


def printed(text: str, cell: str = "one") -> list[bytes]:
    return frames("stream", {"name": "stdout", "text": text}, cell)


def read(workspace: Path) -> Journal:
    files = [workspace / FOLDER / name for name in (OLDER, NEWER)]
    return journal_of(file.read_bytes() for file in files if file.exists())


def held(workspace: Path) -> int:
    return sum(file.stat().st_size for file in (workspace / FOLDER).iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "an-image:1")
    writer.begin(PARENT, "print('ü')\n1", 7)
    writer.add(printed("ü\n"))
    writer.add(frames("execute_result", {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 7}))
    writer.add(frames("status", {"execution_state": "idle"}))
    writer.end(PARENT, {"status": "ok"})
    writer.add(printed("from a thread\n"))
    journal = read(tmp_path)
    (cell,) = journal.cells
    assert (cell.code, cell.execution_count, cell.asked_by, cell.status) == ("print('ü')\n1", 7, "somebody", "ok")
    assert list(cell.outputs) == [
        Stream("stdout", "ü\n"),
        Result({"text/plain": "1"}, {}, 7),
        Stream("stdout", "from a thread\n"),
    ]
    assert cell.ended_at is not None and cell.started_at <= cell.ended_at
    start = journal.entries[0]
    assert not isinstance(start, JournalCell) and start.image == "an-image:1"
    assert not journal.beginning_missing and not journal.lost


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    Writer(tmp_path, 1 << 20, "i")
    assert (tmp_path / FOLDER / NEWER).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == (tmp_path / FOLDER).parent.stat().st_mode & 0o777 == 0o700


def test_an_error_is_kept_with_its_name(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    writer.begin(PARENT, "1/0", 1)
    writer.add(frames("error", {"ename": "ZeroDivisionError", "evalue": "no", "traceback": ["line"]}))
    writer.end(PARENT, {"status": "error", "ename": "ZeroDivisionError", "evalue": "no"})
    (cell,) = read(tmp_path).cells
    assert cell.status == "error" and cell.error is not None
    assert (cell.error.name, cell.error.value, cell.error.traceback) == ("ZeroDivisionError", "no", ("line",))


def test_one_cell_does_not_push_out_the_others(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    writer.begin(PARENT, "first", 1)
    writer.end(PARENT, {"status": "ok"})
    flood = {"header": {"msg_id": "flood"}}
    writer.begin(flood, "flood", 2)
    for _ in range(1000):
        writer.add(printed("x" * 9_999 + "\n", "flood"))
    writer.add(frames("error", {"ename": "E", "evalue": "at the end", "traceback": []}, "flood"))
    writer.end(flood, {"status": "error", "ename": "E", "evalue": "at the end"})
    journal = read(tmp_path)
    assert [cell.code for cell in journal.cells] == ["first", "flood"]
    last = journal.cells[-1]
    assert last.left_out > 9_000_000
    assert last.error is not None and last.error.value == "at the end"
    assert held(tmp_path) < 1 << 20


def test_the_oldest_cells_go_first(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    for number in range(200):
        parent = {"header": {"msg_id": str(number)}}
        writer.begin(parent, f"# {number}", number)
        writer.add(printed("x" * 20_000, str(number)))
        writer.end(parent, {"status": "ok"})
        assert held(tmp_path) <= 1 << 20
    journal = read(tmp_path)
    assert journal.beginning_missing
    numbers = [cell.execution_count for cell in journal.cells]
    assert numbers == list(range(200 - len(numbers), 200)) and len(numbers) > 20
    assert journal.entries[0].image == "i", "it is still known what the cells ran on"  # type: ignore[union-attr]


def test_code_without_end_is_cut(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    writer.begin(PARENT, "é" * 3_000_000, 1)
    (cell,) = read(tmp_path).cells
    assert cell.code.startswith("éé") and cell.code.endswith("characters left out")
    assert held(tmp_path) < 1 << 18


@pytest.mark.parametrize(
    "message",
    [
        [],
        [b"<IDS|MSG>"],
        [b"<IDS|MSG>", b"", b"{", b"{}", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b"{}", b"[]", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b"[" * 100_000, b"{}", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b'{"msg_type": ["stream"]}', b'{"msg_id": "one"}', b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b'{"msg_type": "stream"}', b'{"msg_id": {}}', b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b'{"msg_type": "stream"}', b'{"msg_id": "one"}', b"{}", b'{\n"event": "cell"}'],
    ],
)
def test_what_is_no_output_is_not_written(tmp_path: Path, message: list[bytes]) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    writer.begin(PARENT, "1", 1)
    before = held(tmp_path)
    writer.add(message)
    assert held(tmp_path) == before


def test_output_of_nobody_s_cell_is_not_written(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    before = held(tmp_path)
    writer.add(printed("x"))
    writer.end(PARENT, {"status": "ok"})
    assert held(tmp_path) == before


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    file = JournalFile(tmp_path, 1 << 20)
    file.append(event="cell", cell="a", code="1", at=1, count=1)
    file.write(b'{"event": "cell", "cell": "b", "code": "cut o')
    file.close()
    JournalFile(tmp_path, 1 << 20).append(event="cell", cell="c", code="3", at=3, count=3)
    assert [cell.code for cell in read(tmp_path).cells] == ["1", "3"]


def test_a_journal_that_was_removed_is_begun_anew(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    (tmp_path / FOLDER / NEWER).unlink()
    (tmp_path / FOLDER).rmdir()
    writer.begin(PARENT, "1", 1)
    assert [cell.code for cell in read(tmp_path).cells] == ["1"]


def test_nothing_is_written_through_what_lies_in_its_place(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / FOLDER / NEWER).symlink_to(target)
    writer = Writer(tmp_path, 1 << 20, "i")
    writer.begin(PARENT, "1", 1)
    assert target.read_text() == "mine"
    (tmp_path / FOLDER / NEWER).unlink()
    os.mkfifo(tmp_path / FOLDER / NEWER)
    writer.end(PARENT, {"status": "ok"})  # which does not wait for a reader
    (tmp_path / FOLDER / NEWER).unlink()
    writer.begin(PARENT, "2", 2)
    journal = read(tmp_path)
    assert [cell.code for cell in journal.cells] == ["2"]
    assert journal.lost == 3


def test_a_full_disk_loses_records_and_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    real, room = os.write, [10]

    def full(descriptor: int, content: bytes | memoryview) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(descriptor, bytes(content[: room[0]]))
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)
    writer.begin(PARENT, "1", 1)
    writer.end(PARENT, {"status": "ok"})
    monkeypatch.setattr(os, "write", real)
    writer.begin(PARENT, "2", 2)
    journal = read(tmp_path)
    assert [cell.code for cell in journal.cells] == ["2"]
    assert journal.lost == 2


def test_displays_that_are_updated_later_are_read_as_they_ended(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 1 << 20, "i")
    later = {"header": {"msg_id": "two"}}
    shown = {"metadata": {}, "transient": {"display_id": "d"}}
    writer.begin(PARENT, "1", 1)
    writer.add(frames("display_data", {"data": {"text/plain": "before"}, **shown}))
    writer.end(PARENT, {"status": "ok"})
    writer.begin(later, "2", 2)
    writer.add(frames("update_display_data", {"data": {"text/plain": "after"}, **shown}, "two"))
    writer.end(later, {"status": "ok"})
    first = read(tmp_path).cells[0]
    assert [output.data for output in first.outputs if isinstance(output, Display)] == [{"text/plain": "after"}]


@pytest.mark.parametrize("asked", [True, False])
def test_the_supervisor_writes_down_that_python_ended(start: Start, asked: bool) -> None:
    supervised = start(journal={"max_bytes": 1 << 20, "image": "i"})
    client = supervised.attached()
    writer = Writer(supervised.workspace, 1 << 20, "i")
    writer.begin(PARENT, "while True: pass", 1)
    if asked:
        client.request("restart")
    else:
        os.kill(supervised.pid(), signal.SIGKILL)
    wait_until(lambda: read(supervised.workspace).cells[0].status != "unfinished")
    (cell,) = read(supervised.workspace).cells
    assert cell.status == ("killed" if asked else "died")
    assert cell.ended_at is not None
