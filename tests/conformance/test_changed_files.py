"""Which files a cell made or changed, on every engine."""

from __future__ import annotations

import asyncio

import pytest

from session_manager import EngineUnavailable, Execution, Session, SessionManager
from session_manager.engine import ExecStream


def said(run: Execution) -> list[tuple[str, int, str]]:
    assert run.files_complete
    return [(file.path, file.size, file.kind) for file in run.files]


async def test_what_a_cell_leaves_is_named(session: Session) -> None:
    await session.files.put(b"a,b\n1,2\n", "data.csv")
    assert said(await session.execute("print(open('data.csv').read())")) == []
    run = await session.execute(
        "import os, subprocess\nos.makedirs('out', exist_ok=True)\n"
        "with open('out/ü .png', 'wb') as file: file.write(b'12345')\n"
        "open('data.csv', 'a').write('3,4\\n')\n"
        "subprocess.run(['touch', 'by another process'], check=True)\n"
        "open(b'\\xff', 'w').close()"
    )
    assert said(run) == [
        ("by another process", 0, "new"),
        ("data.csv", 12, "changed"),
        ("out/ü .png", 5, "new"),
        ("\udcff", 0, "new"),
    ]
    assert [file.mime for file in run.files][1:3] == ["text/csv", "image/png"]
    assert "changed data.csv (12 bytes)" in run.text and "new out/ü .png (5 bytes)" in run.text
    assert await session.files.get(run.files[2].path) == b"12345"
    assert said(await session.execute("1")) == []


async def test_what_is_removed_or_only_read_is_not_named(session: Session) -> None:
    await session.execute("for name in 'abc': open(name, 'w').write(name)")
    run = await session.execute("import os; os.remove('a'); open('b').read(); open('d', 'w').close(); os.remove('d')")
    assert said(run) == []
    assert "Files:" not in run.text
    assert said(await session.execute("os.rename('b', 'c')")) == [("c", 1, "changed")]


async def test_cells_that_wait_for_one_another_have_each_their_own(session: Session) -> None:
    runs = await asyncio.gather(*(session.execute(f"open('f{number}', 'w').close()") for number in range(4)))
    assert [said(run) for run in runs] == [[(f"f{number}", 0, "new")] for number in range(4)]


async def test_of_many_files_some_are_named(session: Session) -> None:
    run = await session.execute("for number in range(150): open(f'{number:03}', 'w').close()")
    assert [file.path for file in run.files] == [f"{number:03}" for number in range(100)]
    assert not run.files_complete
    assert "and 80 more" in run.text
    assert said(await session.execute("open('007', 'w').write('1')")) == [("007", 1, "changed")]


async def test_of_a_killed_cell_s_many_files_some_are_named(session: Session) -> None:
    code = "import os\nfor number in range(150): open(f'{number:03}', 'w').close()\nos._exit(1)"
    run = await session.execute(code)
    assert (run.status, len(run.files), run.files_complete) == ("died", 100, False)
    assert {file.kind for file in run.files} == {"new"}


@pytest.mark.parametrize("failure", [EngineUnavailable("It went away."), OSError(11, "no more processes")], ids=repr)
async def test_a_look_that_fails_fails_no_cell(
    session: Session, manager: SessionManager, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    asked: list[str] = []

    async def away(container: str) -> ExecStream:
        asked.append(container)
        raise failure

    monkeypatch.setattr(manager.engine, "open_files", away)
    run = await session.execute("open('a', 'w').close(); import os; os._exit(3)")
    assert (run.status, run.files, run.files_complete) == ("died", (), False)
    assert asked == [session.container_name]
    assert (await session.execute("1 + 1")).text.endswith("2")


async def test_a_look_that_takes_too_long_fails_no_cell(
    session: Session, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(container: str) -> ExecStream:
        await asyncio.Event().wait()
        raise AssertionError(container)

    monkeypatch.setattr(manager.engine, "open_files", never)
    monkeypatch.setattr("session_manager.session.LOOK_SECONDS", 0.3)
    run = await session.execute("import os; os._exit(3)")
    assert (run.status, run.files, run.files_complete) == ("died", (), False)


async def test_files_put_between_cells_are_not_the_cell_s(session: Session) -> None:
    await session.execute("1")
    for number in range(5):
        await session.files.put(b"x", f"put-{number}")
        assert said(await session.execute(f"open('own-{number}', 'w').close()")) == [(f"own-{number}", 0, "new")]


async def test_a_cell_that_raises_or_is_interrupted_leaves_files_too(session: Session) -> None:
    run = await session.execute("open('a', 'w').write('1'); 1/0")
    assert run.status == "error" and said(run) == [("a", 1, "new")]
    run = await session.execute("open('b', 'w').close(); import time; time.sleep(60)", timeout=1)
    assert run.status == "interrupted" and said(run) == [("b", 0, "new")]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import os; os._exit(1)", "died"),
        ("import time\nwhile True:\n try: time.sleep(9)\n except KeyboardInterrupt: pass", "killed"),
    ],
)
async def test_a_cell_whose_python_is_gone_leaves_files_too(
    hasty_manager: SessionManager, code: str, status: str
) -> None:
    session = await hasty_manager.throw_away()
    # the clock of files' times moves in steps: what is done in one step can't be told apart
    await session.execute("open('old', 'w').write('1'); open('untouched', 'w').close(); import time; time.sleep(0.1)")
    write = "with open('old', 'a') as old, open('new', 'w') as new: old.write('2'); new.write('abc')\n"
    run = await session.execute(write + code, timeout=3)
    assert run.status == status
    assert said(run) == [("new", 3, "new"), ("old", 2, "changed")]
    assert "new new (3 bytes)" in run.text
    assert said(await session.execute("2")) == []


async def test_of_a_container_that_went_nothing_is_known(session: Session, manager: SessionManager) -> None:
    shown = asyncio.Event()
    running = asyncio.create_task(
        session.execute(
            "open('a', 'w').close(); print(1, flush=True)\nimport time; time.sleep(60)",
            on_output=lambda _: shown.set(),
        )
    )
    await asyncio.wait_for(shown.wait(), 30)
    await manager.engine.remove(session.container_name)
    run = await running
    assert (run.status, run.files, run.files_complete) == ("container_removed", (), False)
