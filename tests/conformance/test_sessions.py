"""Sessions by key: found again, shared, let go of, ended, on every engine."""

from __future__ import annotations

import asyncio
import signal
import subprocess

import pytest

from session_manager import SessionClosed, SessionManager, Settings, SettingsError, open_session
from session_manager.engine import ExecStream
from tests.conftest import MakeManager, MakeSettings, run_python

SET = """
import asyncio, os, sys
async def main():
    async with SessionManager(settings) as manager:
        session = await manager.session("shared")
        run = await session.execute("x = 41; import os; pid = os.getpid(); pid")
        print(run.text, flush=True)
        sys.stdin.readline()
        run = await session.execute("x")
        print(run.text, flush=True)
        if "die" in sys.argv: os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def start(code: str, settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*run_python(code, settings), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def test_another_process_finds_the_session_while_the_first_lives(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    other = await asyncio.to_thread(start, SET, make_settings())
    assert other.stdin and other.stdout
    pid = (await asyncio.to_thread(other.stdout.readline)).strip()
    session = await manager.session("shared")
    assert (await session.execute("(pid, x)")).text == f"({pid}, 41)"
    await session.execute("x += 1")
    # and back: the turn to run cells goes to and fro
    out, _ = await asyncio.to_thread(other.communicate, "\n")
    assert out.strip() == "42" and other.returncode == 0
    assert (await session.execute("x")).text == "42"


async def test_a_session_outlives_a_manager_that_was_killed(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    other = await asyncio.to_thread(start, SET, make_settings(), "die")
    await asyncio.to_thread(other.communicate, "\n")
    assert other.returncode == -signal.SIGKILL
    session = await manager.session("shared")
    run = await session.execute("x")
    assert run.text == "41" and run.notice is None


async def test_two_processes_that_create_one_key_get_one_session(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    processes = [await asyncio.to_thread(start, SET, make_settings()) for _ in range(4)]
    results = await asyncio.gather(*(asyncio.to_thread(process.communicate, "\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * 4
    assert len({out.split()[0] for out, _ in results}) == 1, "all saw the same kernel process"
    assert len(await manager.list()) == 1


async def test_cells_of_two_managers_take_turns(make_manager: MakeManager) -> None:
    sessions = [await (await make_manager()).session("turns") for _ in range(3)]
    await sessions[0].execute("n = 0")
    code = "import time\nbefore = n\ntime.sleep(0.01)\nn = before + 1\nprint(n)"
    runs = await asyncio.gather(*(session.execute(code) for session in sessions for _ in range(8)))
    assert sorted(int(run.text) for run in runs) == list(range(1, 25)), "no increment was lost or doubled"


async def test_a_cell_that_waits_for_its_turn_can_be_cancelled(make_manager: MakeManager) -> None:
    first = await (await make_manager()).session("turns")
    second = await (await make_manager()).session("turns")
    begun = asyncio.Event()
    running = asyncio.create_task(
        first.execute("print(1, flush=True)\nimport time; time.sleep(2)", on_output=lambda _: begun.set())
    )
    await begun.wait()
    waiting = asyncio.create_task(second.execute("ran = True"))
    await asyncio.sleep(0.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await running).status == "ok", "the other program's cell was not touched"
    assert (await second.execute("'ran' in globals()")).text == "False"


async def test_a_broken_link_heals_and_the_cell_goes_on(manager: SessionManager) -> None:
    session = await manager.session("healing")
    seen = asyncio.Event()
    task = asyncio.create_task(
        session.execute(
            "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.1)\n'end'",
            on_output=lambda _: seen.set(),
        )
    )
    await seen.wait()
    session._attachment.container.link.drop()
    run = await task
    assert run.status == "ok" and not run.output_incomplete
    assert run.text.split() == [*map(str, range(20)), "'end'"], "all of it, in order, and each once"
    after = await session.execute("i")
    assert after.text == "19" and not after.output_incomplete


async def test_a_reply_that_went_with_the_link_is_recovered(manager: SessionManager) -> None:
    session = await manager.session("recovering")
    await session.execute("x = 1")
    heal = session._attachment.container.heal

    async def slow_heal() -> None:
        await asyncio.sleep(1.5)  # the cell ends meanwhile, and its reply has nowhere to go
        await heal()

    session._attachment.container.heal = slow_heal  # type: ignore[method-assign]
    task = asyncio.create_task(session.execute("import time; time.sleep(0.5); x = 2; 1 / 0"))
    await asyncio.sleep(0.2)
    session._attachment.container.link.drop()
    run = await asyncio.wait_for(task, 30)
    assert run.status == "error" and run.error is not None and run.error.name == "ZeroDivisionError"
    assert run.variables_kept
    assert (await session.execute("x")).text == "2"


async def test_list_tells_what_runs(manager: SessionManager, make_manager: MakeManager) -> None:
    session = await manager.session("listed/1")
    await (await make_manager()).session("listed/2")
    begun = asyncio.Event()
    running = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(2)", on_output=lambda _: begun.set())
    )
    await begun.wait()
    first, second = await manager.list()
    await running
    assert (first.key, second.key) == ("listed/1", "listed/2")
    assert (first.state, second.state) == ("busy", "idle")
    assert first.memory is not None and 10e6 < first.memory < 1e9
    assert second.idle is not None and 0 <= second.idle < 60 and second.age < 120


async def test_looking_at_sessions_of_one_s_own_starts_nothing_in_them(
    manager: SessionManager, make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await make_manager()
    await (await other.session("another's")).execute("x = 1")
    session = await manager.session("own")
    await session.execute("x = 1")
    seen: list[str] = []
    started, exec_into = asyncio.Event(), manager.engine.exec

    async def exec_seen(container: str, *, observe: bool = False) -> ExecStream:
        found = await manager.engine.inspect(container)
        seen.append(found.name if found is not None else "gone")
        return await exec_into(container, observe=observe)

    monkeypatch.setattr(manager.engine, "exec", exec_seen)
    task = asyncio.create_task(
        session.execute("import time; print(1, flush=True); time.sleep(60)", on_output=lambda _: started.set())
    )
    await started.wait()
    states = {one.key: (one.state, one.memory is not None) for one in await manager.list()}
    assert states == {"own": ("busy", True), "another's": ("idle", True)}
    manager._reaper._next_look.clear()
    await manager._reaper.sweep()
    assert session.container_name not in seen and seen
    link = session.link
    assert link is not None
    link.drop()
    await link.wait_until_broken()
    assert {one.state for one in await manager.list() if one.key == "own"} == {"busy"}
    await session.interrupt()
    assert (await task).status == "interrupted"


async def test_stop_keeps_the_workspace_and_purge_does_not(manager: SessionManager) -> None:
    session = await manager.session("files")
    await session.execute("open('kept.txt', 'w').write('here')")
    assert await manager.stop("files") is True
    assert await manager.list() == []
    with pytest.raises(SessionClosed):
        await session.execute("1")
    again = await manager.session("files")
    assert (await again.execute("open('kept.txt').read()")).text.endswith("'here'")
    assert await manager.stop("files", purge=True) is True
    assert await manager.stop("files", purge=True) is False
    fresh = await manager.session("files")
    assert (await fresh.execute("import os; [name for name in os.listdir() if name[0] != '.']")).text == "[]"


async def test_throw_away_sessions_go_with_their_manager_and_named_ones_stay(
    make_manager: MakeManager,
) -> None:
    first = await make_manager()
    await first.throw_away()
    await first.session("stays")
    await first.detach()
    second = await make_manager()
    assert [status.key for status in await second.list()] == ["stays"]


async def test_close_ends_what_was_handed_out(make_manager: MakeManager) -> None:
    first = await make_manager()
    await first.session("ends")
    await first.close()
    with pytest.raises(SessionClosed):
        await first.session("ends")
    assert await (await make_manager()).list() == []


async def test_a_manager_remembers_nothing_of_sessions_that_ended(manager: SessionManager) -> None:
    for _ in range(3):
        session = await manager.throw_away()
        await session.stop()
    assert manager._sessions == {}


@pytest.mark.parametrize("key", ["", "x" * 513, "a\nb", "a\x00b"])
async def test_a_bad_key_is_refused(manager: SessionManager, key: str) -> None:
    with pytest.raises(SettingsError):
        await manager.session(key)


async def test_keys_of_any_script_and_look_are_apart(manager: SessionManager) -> None:
    keys = ["user/1", "user-1", "USER/1", "пользователь/１", "a b:c'\"$(x)", "../../etc"]
    for key in keys:
        await (await manager.session(key)).execute(f"mine = {key!r}")
    for key in keys:
        assert (await (await manager.session(key)).execute("print(mine)")).text == key
    assert sorted(status.key for status in await manager.list()) == sorted(keys)


async def test_an_abandoned_session_ends_by_itself(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"idle_timeout": 1, "idle_margin": 0})
    await (await manager.session("abandoned")).execute("1")
    await manager.detach()
    watcher = await make_manager()
    async with asyncio.timeout(30):
        # listed from the engine: asking the session itself would count as company
        while await watcher.engine.list({}) and any(
            info.name.startswith(watcher.settings.namespace) for info in await watcher.engine.list({})
        ):
            await asyncio.sleep(0.2)


async def test_the_blocking_front_works_beside_a_running_loop(make_settings: MakeSettings) -> None:
    # called in the loop's own thread, as a notebook would
    with open_session("blocking", make_settings()) as session:
        assert session.execute("1 + 1").text == "2"
        lines: list[str] = []
        session.execute("print('seen')", on_output=lambda output: lines.append(type(output).__name__))
        assert lines == ["Stream"]
    with open_session("blocking", make_settings()) as session:
        assert session.execute("_").status == "ok"
        session.stop(purge=True)


def test_the_blocking_front_passes_ctrl_c_on(make_settings: MakeSettings) -> None:
    code = """
with open_session("ctrl-c", settings) as session:
    try:
        session.execute("import time; x = 3; print('begun', flush=True); time.sleep(60)",
            on_output=lambda _: print("begun", flush=True))
    except KeyboardInterrupt:
        print("stopped", session.execute("x").text)
    session.stop(purge=True)
"""
    process = subprocess.Popen(run_python(code, make_settings()), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "stopped 3\n" and process.returncode == 0
