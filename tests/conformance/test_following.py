"""Looking into a session while it works, and taking over what another program left running; on every engine."""

from __future__ import annotations

import asyncio

import pytest

from session_manager import Output, SessionManager, Stream
from tests.conformance.test_reaping import killed_after_a_line
from tests.conftest import MakeManager, MakeSettings

PATIENCE = 60.0

LEAVE = """
import asyncio
async def main():
    manager = SessionManager(settings)
    session = await manager.session("left")
    code = "import time\\nfor i in range(40): print(i, flush=True); time.sleep(0.1)\\nx = 'set'\\n'end'"
    def told(output):
        print("begun", flush=True)
    await session.execute(code, on_output=told)
asyncio.run(main())
"""

FAIL = LEAVE.replace("'end'", "1 / 0").replace("range(40)", "range(10)")


async def test_a_cell_that_a_killed_program_left_is_followed_to_its_end(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    await killed_after_a_line(LEAVE, make_settings())
    await asyncio.sleep(0.5)  # what is printed now, nobody hears
    seen: list[Output] = []
    session = await manager.session("left")
    assert (await session.running() or 0) > 0.4
    run = await asyncio.wait_for(session.follow(seen.append), PATIENCE)
    assert run is not None and run.status == "ok" and not run.output_incomplete
    assert run.text.split() == [*map(str, range(40)), "'end'"], "all of it, in order, and each once"
    assert "".join(one.text for one in seen if isinstance(one, Stream)).split() == [*map(str, range(40))]
    assert run.code.startswith("import time\nfor i in range(40)")
    assert run.execution_count == 1 and run.duration > 3
    assert (await session.execute("x")).text == "'set'"


async def test_a_cell_that_ended_while_nobody_was_there_is_told_all_the_same(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    await killed_after_a_line(FAIL, make_settings())
    session = await manager.session("left")
    async with asyncio.timeout(PATIENCE):
        while await session.running() is not None:
            await asyncio.sleep(0.1)
    run = await session.follow()
    assert run is not None and run.status == "error"
    assert run.error is not None and run.error.name == "ZeroDivisionError"
    assert "----> 3 x = 'set'" not in run.text and "ZeroDivisionError: division by zero" in run.text
    assert run.text.split()[:10] == [*map(str, range(10))]


async def test_following_where_nothing_has_run(manager: SessionManager) -> None:
    assert await (await manager.session("fresh")).follow() is None


async def test_output_beyond_what_is_kept_inside_is_said_to_be_missing(
    make_settings: MakeSettings, make_manager: MakeManager
) -> None:
    flood = LEAVE.replace("print(i, flush=True)", "print('y' * 30_000, i, flush=True)")
    await killed_after_a_line(flood, make_settings(limits={"replay_bytes": "256k"}))
    await asyncio.sleep(2)
    run = await (await (await make_manager()).session("left")).follow()
    assert run is not None and run.status == "ok" and run.output_incomplete
    assert run.text.splitlines()[-2] == "'end'", "the latest is there"


async def test_a_new_cell_waits_for_the_one_that_was_left_and_its_time_does_not_run(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    await killed_after_a_line(LEAVE, make_settings())
    session = await manager.session("left")
    run = await session.execute("x", timeout=3)
    assert (run.status, run.text) == ("ok", "'set'")


async def test_a_cell_that_was_left_can_be_interrupted(make_settings: MakeSettings, manager: SessionManager) -> None:
    await killed_after_a_line(LEAVE, make_settings())
    session = await manager.session("left")
    following = asyncio.create_task(session.follow())
    await asyncio.sleep(0.3)
    assert await session.interrupt() is True
    run = await asyncio.wait_for(following, PATIENCE)
    assert run is not None and run.status == "error" and run.error is not None
    assert run.error.name == "KeyboardInterrupt"
    assert await session.interrupt() is False
    assert (await session.execute("'x' in globals()")).text == "False"


async def test_another_programs_cell_is_seen_and_can_be_interrupted(make_manager: MakeManager) -> None:
    ours, theirs = await (await make_manager()).session("shared"), await (await make_manager()).session("shared")
    assert await ours.running() is None
    begun = asyncio.Event()
    code = "print(1, flush=True)\nimport time; time.sleep(60)"
    task = asyncio.create_task(theirs.execute(code, on_output=lambda _: begun.set()))
    await begun.wait()
    seconds = await ours.running()
    assert seconds is not None and 0 <= seconds < PATIENCE
    assert await ours.interrupt() is True
    run = await asyncio.wait_for(task, PATIENCE)
    assert run.status == "error" and run.error is not None and run.error.name == "KeyboardInterrupt"


async def test_an_interrupt_hits_the_cell_it_was_meant_for_alone(make_manager: MakeManager) -> None:
    session = await (await make_manager()).session("shared")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(2); 'done'", on_output=lambda _: begun.set())
    )
    await begun.wait()
    reply = await session._attachment.link.request("interrupt", cell="another")
    assert reply["interrupted"] is False
    assert (await task).text.endswith("'done'")


async def test_variables_and_completions_while_a_cell_runs(manager: SessionManager) -> None:
    session = await manager.session("busy")
    await session.execute("numbers = list(range(1000))\ntext = 'a' * 100_000\nclass Thing: pass\nthing = Thing()")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(8); 'done'", on_output=lambda _: begun.set())
    )
    await begun.wait()
    found = {one.name: one for one in await session.variables()}
    assert (found["numbers"].type, found["numbers"].shape) == ("list", (1000,))
    assert found["numbers"].size is not None and found["numbers"].size > 8000
    assert found["text"].repr.startswith("'aaa") and len(found["text"].repr) <= 120
    assert "Thing" in found["thing"].type and "Thing" in found["thing"].repr
    completions = await session.complete("numb")
    assert "numbers" in completions.matches
    assert "list" in await session.inspect("numbers")
    assert not task.done(), "all that came while the cell ran"
    run = await task
    assert run.text.endswith("'done'"), "and the cell was not disturbed"


async def test_a_repr_that_hangs_or_lies_holds_up_nobody(manager: SessionManager) -> None:
    session = await manager.session("hostile")
    await session.execute(
        "import time\n"
        "class Slow:\n    def __repr__(self):\n        while True: time.sleep(0.01)\n"
        "class Loud:\n    def __repr__(self): raise SystemExit('gone')\n"
        "class Long:\n    def __repr__(self): return 'x' * 10_000_000\n"
        "class Shape:\n    @property\n    def shape(self):\n        while True: pass\n"
        "slow, loud, long, shape, fine = Slow(), Loud(), Long(), Shape(), 1"
    )
    found = {one.name: one for one in await asyncio.wait_for(session.variables(), PATIENCE)}
    assert found["fine"].repr == "1"
    assert "too long" in found["slow"].repr or "no time" in found["slow"].repr
    assert "SystemExit" in found["loud"].repr and len(found["long"].repr) <= 120
    assert (await session.execute("fine")).text == "1"


async def test_native_code_that_holds_the_interpreter_is_a_timeout(manager: SessionManager) -> None:
    session = await manager.session("native")
    await session.execute("import ctypes")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute(
            "print(1, flush=True)\nctypes.PyDLL(None).sleep(1000)  # holds the GIL",
            timeout=None,  # however long this machine stands still
            on_output=lambda _: begun.set(),
        )
    )
    await begun.wait()
    with pytest.raises(TimeoutError):
        while not task.done():  # the first may be quicker than the cell
            await session.variables(timeout=1.0)
    assert await session.interrupt(), "a signal ends the native sleep"
    assert (await task).status == "interrupted"
    assert [one.name for one in await session.variables()] == ["ctypes"], "the next call has a fresh subshell"
