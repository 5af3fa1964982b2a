"""Sessions that nobody needs: put away, found again, orphaned by a killed manager; on every engine."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time

import pytest

from session_manager import Execution, Session, SessionManager, Settings, SettingsError, TooManySessions
from session_manager import reaper as reaper_module
from session_manager.admission import Admission
from session_manager.engine import make_engine
from session_manager.link import Link
from session_manager.reaper import Reaper, observe
from session_manager.registry import LABEL_NAMESPACE, SessionName
from tests.conftest import MakeManager, MakeSettings, run_python

PATIENCE = 60.0
SHORT = {"idle_timeout": 1.0, "idle_margin": 1.0, "orphan_grace": 2.0}


async def containers(settings: Settings) -> list[str]:
    """What runs, asked of the engine behind everybody's back."""
    engine = make_engine(settings)
    try:
        return [info.name for info in await engine.list({LABEL_NAMESPACE: settings.namespace})]
    finally:
        await engine.close()


async def volumes(settings: Settings) -> list[str]:
    engine = make_engine(settings)
    try:
        return [info.name for info in await engine.list_volumes({LABEL_NAMESPACE: settings.namespace})]
    finally:
        await engine.close()


async def until_gone(settings: Settings) -> None:
    """Until no container of this test run is left."""
    async with asyncio.timeout(PATIENCE):
        while await containers(settings):
            await asyncio.sleep(0.1)


def begin(code: str, settings: Settings) -> subprocess.Popen[str]:
    """A program with a manager, which says a line when it is where it should be; then it may be killed."""
    return subprocess.Popen(run_python(code, settings), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


async def killed_after_a_line(code: str, settings: Settings) -> None:
    process = begin(code, settings)
    assert process.stdout is not None
    assert (await asyncio.to_thread(process.stdout.readline)).strip() == "begun"
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.communicate)


async def test_an_idle_session_is_put_away_though_somebody_is_connected(make_manager: MakeManager) -> None:
    manager = await make_manager(limits=SHORT)
    session = await manager.session("idle")
    await session.execute(
        "x = 41\ndef f(): return x + 1\nopen('kept.txt', 'w').write('here')\nopen_file = open('kept.txt')"
    )
    await until_gone(manager.settings)
    run = await session.execute("x += 0\nprint(f(), open('kept.txt').read())")
    assert run.text.endswith("42 here")
    assert run.notice is not None
    assert "put away because no cell had run for a while at 20" in run.notice
    assert "x, f" in run.notice and "open_file (PicklingError: an open file)" in run.notice
    again = await session.execute("x")
    assert again.notice is None, "what was told once is not told again"


async def test_a_session_is_kept_for_as_long_as_it_is_told_to_be(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"idle_margin": 1.0})
    short, other = await manager.session("short"), await manager.session("other")
    await short.execute("x = 42")
    with pytest.raises(SettingsError, match="can't be kept for 0"):
        await short.keep_for(0)
    await short.keep_for(1.0)
    async with asyncio.timeout(PATIENCE):
        while short.container_name in await containers(manager.settings):
            await manager._reaper.sweep()
            await asyncio.sleep(0.2)
    assert other.container_name in await containers(manager.settings)
    run = await short.execute("x")
    assert run.text.endswith("42") and "put away" in str(run.notice)


async def test_a_session_that_another_manager_put_away_and_made_again_is_another(make_manager: MakeManager) -> None:
    first, second = await make_manager(), await make_manager()
    session, same = await first.session("shared"), await second.session("shared")
    await session.execute("x = 1")
    await same.stop()
    again = await second.session("shared")
    await again.execute("x = 2")
    run = await session.execute("x")
    assert run.text.endswith("2"), run.text
    await again.stop()
    run = await session.execute("'x' in globals()")
    assert run.text.endswith("False") and "variables" in str(run.notice)


async def test_without_saving_the_next_session_says_since_when_variables_are_gone(make_manager: MakeManager) -> None:
    manager = await make_manager(limits=SHORT, saving={"enabled": False})
    session = await manager.session("idle")
    await session.execute("x = 1; open('kept.txt', 'w').write('here')")
    await until_gone(manager.settings)
    run = await (await manager.session("idle")).execute("print('x' in globals(), open('kept.txt').read())")
    assert run.text.endswith("False here")
    assert run.notice is not None and " at 20" in run.notice
    assert run.notice.endswith("Its variables are gone; its files are kept.")


async def test_a_busy_session_is_not_put_away(make_manager: MakeManager) -> None:
    manager = await make_manager(limits=SHORT)
    await make_manager(limits=SHORT)
    session = await manager.session("busy")
    run = await session.execute("import time; time.sleep(4); 'done'")
    assert (run.status, run.text) == ("ok", "'done'")


async def test_a_cell_that_begins_before_the_axe_falls_saves_its_session(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await make_manager(limits={"idle_timeout": 4.0})
    session = await manager.session("close")
    await manager._reaper.stop()
    await session.execute("x = 1")
    reaper = Reaper(manager.engine, manager._thread, manager.settings)
    link = Link(manager._thread, manager._thread.new_directory(), lambda: None)
    await asyncio.sleep(4.1)
    info = await manager.engine.inspect(session.container_name)
    assert info is not None
    status = await observe(link, manager.engine, info.id)
    limits = reaper._limits_of(status)
    assert limits.reason(status) == "idle", "it had to go"
    await session.execute("x = 2")  # and now it must not
    assert await reaper.put_away(link, info.id, "idle", limits) is False
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(60)", on_output=lambda _: begun.set())
    )
    await begun.wait()
    monkeypatch.setattr(reaper_module, "TURN_TIMEOUT", 1.0)
    assert await reaper.put_away(link, info.id, "age") is False, "not under a cell that runs, for whatever reason"
    await link.close()
    await session.interrupt()
    assert (await task).status == "interrupted"
    assert (await session.execute("x")).text == "2"


async def test_a_call_that_waits_while_its_session_is_put_away_gets_the_next_one(make_manager: MakeManager) -> None:
    manager = await make_manager()
    session = await manager.session("waits")
    await session.execute("x = 5")
    info = await manager.engine.inspect(session.container_name)
    assert info is not None
    link = Link(manager._thread, manager._thread.new_directory(), lambda: None)
    await observe(link, manager.engine, info.id)
    await link.acquire_turn()
    waiting = asyncio.create_task(session.execute("x + 1"))
    await asyncio.sleep(0.3)
    assert await manager._reaper.put_away(link, info.id, "idle") is True
    await link.close()
    run = await asyncio.wait_for(waiting, PATIENCE)
    assert run.status == "ok" and run.text.endswith("6")
    assert run.notice is not None and "x" in run.notice


async def test_an_old_session_goes_when_no_cell_runs(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"longest_life": 3.0})
    session = await manager.session("old")
    until = time.monotonic() + 4
    runs: list[Execution] = []
    while time.monotonic() < until:
        runs.append(await session.execute("n = globals().get('n', 0) + 1\nimport time; time.sleep(0.2)\nprint(n)"))
    assert all(run.status == "ok" for run in runs)
    await until_gone(manager.settings)
    run = await session.execute("print(n)")
    assert run.notice is not None and "lived for long" in run.notice
    assert run.text.endswith(f"\n{len(runs)}"), "no cell was lost"


async def test_no_cell_runs_longer_than_the_longest(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"longest_cell": 1.0})
    session = await manager.session("long")
    for timeout in (None, 30):
        run = await session.execute("import time; time.sleep(20)", timeout=timeout)
        assert run.status == "interrupted" and run.message is not None and "1 s" in run.message


ABANDON = """
import asyncio
async def main():
    manager = SessionManager(settings)
    session = await manager.session("abandoned")
    await session.execute("x = 7; open('kept.txt', 'w').write('here')")
    print("begun", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_container_without_a_manager_saves_variables_and_ends_by_itself(
    make_settings: MakeSettings, make_manager: MakeManager
) -> None:
    # it outlasts the manager, which would reap it
    await killed_after_a_line(ABANDON, make_settings(limits=SHORT | {"idle_margin": 2.0}))
    assert len(await containers(make_settings())) == 1
    await until_gone(make_settings())
    run = await (await (await make_manager()).session("abandoned")).execute("print(x, open('kept.txt').read())")
    assert run.text.endswith("7 here")
    assert run.notice is not None and "put away because no cell had run" in run.notice


async def test_listing_does_not_keep_a_container_alive(make_settings: MakeSettings, make_manager: MakeManager) -> None:
    await killed_after_a_line(ABANDON, make_settings(limits=SHORT))
    watcher = SessionManager(make_settings())
    async with asyncio.timeout(PATIENCE):
        while await watcher.list():
            await asyncio.sleep(0.05)
    await watcher.detach()


ORPHAN = """
import asyncio
async def main():
    manager = SessionManager(settings)
    session = await manager.throw_away()
    task = asyncio.create_task(session.execute("import time; time.sleep(600)", timeout=None))
    while session.running_for is None:
        await asyncio.sleep(0.01)
    print("begun", flush=True)
    await task
asyncio.run(main())
"""


async def test_a_throw_away_session_of_a_killed_manager_goes_with_its_files(
    make_settings: MakeSettings, make_manager: MakeManager
) -> None:
    settings = make_settings(limits=SHORT)
    await killed_after_a_line(ORPHAN, settings)
    assert len(await volumes(settings)) == 1
    await until_gone(settings)  # though a cell runs: nobody can ever come back to it
    managers = await asyncio.gather(*(make_manager(limits=SHORT) for _ in range(10)))
    async with asyncio.timeout(PATIENCE):
        while await volumes(settings):
            await asyncio.gather(*(manager._reaper.sweep() for manager in managers))


async def test_ten_managers_sweep_at_once(make_manager: MakeManager) -> None:
    managers = [await make_manager(limits={"idle_timeout": 1.0}) for _ in range(10)]
    sessions = [await managers[0].session(f"many/{i}") for i in range(3)]
    await asyncio.gather(*(session.execute(f"x = {i}") for i, session in enumerate(sessions)))
    await asyncio.sleep(1.1)
    await asyncio.gather(*(manager._reaper.sweep() for manager in managers))
    await until_gone(managers[0].settings)
    runs = await asyncio.gather(*(session.execute("x") for session in sessions))
    assert [run.text.splitlines()[-1] for run in runs] == ["0", "1", "2"]


async def fill(manager: SessionManager, keys: range, owner: str = "") -> list[Session]:
    return [await manager.session(f"full/{i}", owner=owner) for i in keys]


async def test_over_the_most_sessions_the_longest_idle_goes(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"sessions": 3, "sessions_per_owner": 2})
    first, second = await fill(manager, range(2), "one")
    other = await manager.session("full/0", owner="two")
    await first.execute("x = 1")
    await other.execute("x = 'other'")
    await second.execute("x = 2")
    await asyncio.sleep(1)  # each is asked for how long it is idle, and one may answer later than another
    await first.execute("x")
    await manager.session("full/9", owner="one")  # for which the second goes, idle for longest of this owner
    running = {(one.owner, one.key) for one in await manager.list()}
    assert running == {("one", "full/0"), ("one", "full/9"), ("two", "full/0")}
    run = await second.execute("x")
    assert run.text.endswith("2") and run.notice is not None and "make room" in run.notice


async def test_when_full_a_new_session_may_be_refused(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"sessions": 1, "when_full": "refuse"})
    session = await manager.session("full")
    with pytest.raises(TooManySessions, match=r"run as may \(1\)"):
        await manager.session("one more")
    assert (await session.execute("1")).status == "ok"
    assert await manager.session("full") is session
    await manager.stop("full")
    await manager.session("one more")


async def test_where_a_cell_runs_in_each_a_new_session_is_refused(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"sessions": 1})
    session = await manager.session("full")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(3); 'done'", on_output=lambda _: begun.set())
    )
    await begun.wait()
    with pytest.raises(TooManySessions, match="A cell runs in each"):
        await manager.session("one more")
    assert (await task).text.endswith("'done'")


async def test_the_most_sessions_hold_when_many_start_at_once(make_manager: MakeManager) -> None:
    managers = [await make_manager(limits={"sessions_per_owner": 2, "when_full": "refuse"}) for _ in range(3)]
    starts = [manager.session(f"race/{i}", owner="me") for i, manager in enumerate(managers * 2)]
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert all(isinstance(one, Session | TooManySessions) for one in results)
    assert len(await managers[0].list()) <= 2
    assert sum(isinstance(one, Session) for one in results) <= 2


async def test_of_two_that_found_the_last_place_free_the_younger_gives_it_up(make_manager: MakeManager) -> None:
    manager = await make_manager()
    await fill(manager, range(2))
    settings = manager.settings.model_copy(
        update={"limits": manager.settings.limits.model_copy(update={"sessions": 1})}
    )
    admission = Admission(manager.engine, manager._thread, settings, manager._reaper)
    names = [SessionName(settings.namespace, f"full/{i}") for i in range(2)]
    assert sorted([await admission.confirm(name) for name in names]) == [False, True]


async def test_a_limit_that_was_lowered_makes_as_much_room_as_it_takes(make_manager: MakeManager) -> None:
    generous = await make_manager()
    for number in range(6):
        await (await generous.session(f"before-{number}", owner="me")).execute("1")
    strict = await make_manager(limits={"sessions_per_owner": 2})
    await (await strict.session("one more", owner="me")).execute("1")
    running = [one.key for one in await strict.list()]
    assert "one more" in running and len(running) == 2
