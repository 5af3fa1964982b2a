"""The journal of a session, on every engine: what ran is written down as it runs, and survives whatever ends."""

from __future__ import annotations

import asyncio

import nbformat
import pytest

from session_manager import FileError, Journal, SandboxError, Session, SessionManager, Stream
from session_manager.journal_notebook import notebook_of
from tests.conftest import MakeManager

STUBBORN = """
import time
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        pass
"""


def summary(journal: Journal) -> list[tuple[str, str]]:
    return [(cell.code, cell.status) for cell in journal.cells]


def printed(journal: Journal, number: int) -> str:
    return "".join(output.text for output in journal.cells[number].outputs if isinstance(output, Stream))


async def test_every_cell_is_written_down(manager: SessionManager, hasty_manager: SessionManager) -> None:
    session = await manager.session("written")
    await session.execute("print('one')\n'two'", asked_by="user 1")
    await session.execute("1/0")
    await (await hasty_manager.session("written")).execute(STUBBORN, timeout=1)
    await session.execute("import os; os._exit(3)")
    await session.execute("import time; time.sleep(60)", timeout=1)
    journal = await session.journal()
    assert summary(journal) == [
        ("print('one')\n'two'", "ok"),
        ("1/0", "error"),
        (STUBBORN, "killed"),
        ("import os; os._exit(3)", "died"),
        ("import time; time.sleep(60)", "interrupted"),
    ]
    first, second = journal.cells[:2]
    assert (first.asked_by, first.execution_count, printed(journal, 0)) == ("user 1", 1, "one\n")
    assert first.ended_at is not None and first.started_at <= first.ended_at <= second.started_at
    assert second.error is not None and second.error.name == "ZeroDivisionError"
    nbformat.validate(notebook_of(journal, key="written"))


async def test_it_outlives_its_container_and_goes_on_in_the_next(manager: SessionManager) -> None:
    session = await manager.session("outlives")
    await session.execute("print('before')")
    await manager.engine.remove(session.container_name)  # which kills everything in it
    assert summary(await manager.journal("outlives")) == [("print('before')", "ok")]
    await (await manager.session("outlives")).execute("print('after')")
    await manager.stop("outlives")
    journal = await manager.journal("outlives")
    assert summary(journal) == [("print('before')", "ok"), ("print('after')", "ok")]
    assert [printed(journal, number) for number in (0, 1)] == ["before\n", "after\n"]


async def test_a_cell_is_in_it_while_it_runs_and_when_it_is_killed_with_all(manager: SessionManager) -> None:
    session = await manager.session("cut off")
    shown = asyncio.Event()
    running = asyncio.create_task(
        session.execute("print('so far', flush=True)\nimport time; time.sleep(60)", on_output=lambda _: shown.set())
    )
    await asyncio.wait_for(shown.wait(), 30)
    journal = await manager.journal("cut off")
    assert journal.cells[0].status == "unfinished" and printed(journal, 0) == "so far\n"
    await manager.engine.remove(session.container_name)
    assert (await running).status == "container_removed"
    await (await manager.session("cut off")).execute("1")
    journal = await manager.journal("cut off")
    assert [cell.status for cell in journal.cells] == ["container_removed", "ok"]
    assert printed(journal, 0) == "so far\n"


async def test_the_limit_holds(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"journal_bytes": "1m"})
    session = await manager.session("limited")
    await session.execute("print('first')")
    await session.execute("for _ in range(300): print('x' * 20_000)")
    for number in range(24):
        await session.execute(f"print('{number}' * 50_000)")
    entries = await session.files.list(".docker-interpreter/journal", hidden=True)
    assert 0 < sum(entry.size for entry in entries) <= 1 << 20
    journal = await session.journal()
    assert journal.beginning_missing
    assert journal.cells[-1].code == "print('23' * 50_000)"
    assert printed(journal, -1) == "23" * 50_000 + "\n"


async def test_none_is_kept_where_none_is_wanted(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"journal_bytes": None})
    session = await manager.session("without")
    await session.execute("1")
    assert (await session.journal()).entries == ()
    thrown = await (await make_manager()).throw_away()
    await thrown.execute("1")
    assert (await thrown.journal()).entries == ()


async def test_what_the_code_does_to_it_harms_nobody(session: Session, manager: SessionManager) -> None:
    hostile = await manager.session("hostile")
    await hostile.execute(
        "import os, json\n"
        "path = '.docker-interpreter/journal/cells.jsonl'\n"
        "with open(path, 'ab') as file:\n"
        "    file.write(b'[' * 100_000 + b'\\n' + b'\\xff\\n' + b'{\"event\": 5}\\n' + b'null\\n')\n"
        "    file.write(json.dumps({'event': 'cell', 'cell': 'x', 'code': 'forged', 'at': 1e999}).encode() + b'\\n')\n"
    )
    await hostile.execute("2")
    journal = await hostile.journal()
    assert [cell.code for cell in journal.cells][-2:] == ["forged", "2"]
    nbformat.validate(notebook_of(journal, key="hostile"))
    await hostile.execute("import shutil; shutil.rmtree('.docker-interpreter')")
    await hostile.execute("3")
    assert [cell.code for cell in (await hostile.journal()).cells] == ["3"]
    await hostile.execute("os.remove(path); os.mkfifo(path)")
    assert (await hostile.execute("4")).status == "ok"
    with pytest.raises(FileError, match="no ordinary file"):
        await hostile.journal()


async def test_of_no_session_there_is_none(manager: SessionManager) -> None:
    with pytest.raises(SandboxError, match="There is no session"):
        await manager.journal("nobody's")


async def test_a_copy_begins_with_what_ran_before(manager: SessionManager) -> None:
    await (await manager.session("origin")).execute("x = 1")
    copy = await manager.fork("origin", "branch")
    await copy.execute("x = 2")
    assert summary(await copy.journal()) == [("x = 1", "ok"), ("x = 2", "ok")]
    assert summary(await manager.journal("origin")) == [("x = 1", "ok")]
