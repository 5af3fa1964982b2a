"""Variables that outlive their container, and copies of sessions; on every engine."""

from __future__ import annotations

import asyncio

import pytest

from session_manager import SandboxError, SessionManager, SettingsError
from tests.conftest import MakeManager

WORK = """
import math, json as js
from collections import namedtuple
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    y: int = 2
    def length(self): return math.hypot(self.x, self.y) * scale

class Child(Point):
    def length(self): return super().length() + 1

scale = 1
def count(n): return 1 if n == 0 else 1 + count(n - 1)
def make():
    total = 0
    def add(n):
        nonlocal total
        total += n
        return total
    return add
add = make(); add(5)
points = [Point(3, 4), Child(3, 4)]
handler = {'double': lambda n: n * 2 * scale}
alias = points
lock = __import__('threading').Lock()
"""
CHECK = """
scale = 10
print(points[0].length(), points[1].length(), count(3), add(1), handler['double'](2), js.dumps([1]))
print(isinstance(points[0], Point), isinstance(points[1], Child), alias is points)
"""


async def test_variables_come_back_in_a_new_container(manager: SessionManager) -> None:
    session = await manager.session("saved")
    assert (await session.execute(WORK)).status == "ok"
    saved = await session.save_variables()
    assert {"points", "count", "add", "handler", "Point", "Child", "math", "js"} <= set(saved.saved)
    assert [name for name, _ in saved.failed] == ["lock"] and "lock" in saved.failed[0][1].lower()
    assert saved.size > 0
    await manager.stop("saved")
    run = await (await manager.session("saved")).execute(CHECK)
    assert run.status == "ok", run.text
    assert run.notice is not None and "lock (" in run.notice and "points" in run.notice
    shown = run.text.splitlines()
    assert shown[-2] == "50.0 51.0 4 6 40 [1]", "functions and methods use the session's variables of today"
    assert shown[-1] == "True True True"


async def test_what_breaks_as_it_is_restored_harms_its_own_container_alone(manager: SessionManager) -> None:
    session = await manager.session("hostile")
    await session.execute(
        "import os\n"
        "class Bomb:\n    def __reduce__(self): return (os._exit, (7,))\n"
        "bomb, x = Bomb(), 1\nopen('kept.txt', 'w').write('here')"
    )
    await session.save_variables()
    await manager.stop("hostile")
    run = await (await manager.session("hostile")).execute("print('x' in globals(), open('kept.txt').read())")
    assert run.status == "ok" and run.text.endswith("False here")
    assert run.notice is not None and "could not be restored (Python ended as it restored them)" in run.notice


async def test_what_hangs_as_it_is_restored_is_given_up(make_manager: MakeManager) -> None:
    manager = await make_manager(saving={"timeout": 2})
    session = await manager.session("hangs")
    await session.execute(
        "import time\nclass Hang:\n    def __reduce__(self): return (time.sleep, (600,))\na, hang, b = 1, Hang(), 2"
    )
    await session.save_variables()
    await manager.stop("hangs")
    run = await asyncio.wait_for((await manager.session("hangs")).execute("a"), 60)
    assert run.text.endswith("1")
    assert run.notice is not None and "hang (" in run.notice


async def test_limits_of_size_and_time_leave_the_rest(make_manager: MakeManager) -> None:
    manager = await make_manager(saving={"max_bytes": "64k", "timeout": 3})
    session = await manager.session("limits")
    await session.execute(
        "import time\n"
        "class Slow:\n    def __reduce__(self):\n        time.sleep(600)\n"
        "small, big, after, slow, last = 1, 'y' * 1_000_000, 2, Slow(), 3"
    )
    saved = await session.save_variables()
    assert {"small", "after"} <= set(saved.saved)
    failed = dict(saved.failed)
    assert "limit" in failed["big"] and "too long" in failed["slow"]
    assert (await session.execute("last")).text == "3", "the session goes on"


async def test_no_variables_are_lost_where_the_disk_is_full(manager: SessionManager) -> None:
    session = await manager.session("full")
    await session.execute("x = 1")
    await session.save_variables()
    await session.execute(
        "import os, shutil\nshutil.rmtree('.docker-interpreter/variables')\n"
        "open('.docker-interpreter/variables', 'w').close()\nx = 2"
    )
    with pytest.raises(SandboxError, match="variables were not saved"):
        await session.save_variables()
    assert (await session.execute("x")).text == "2"


async def test_a_fork_goes_its_own_way(manager: SessionManager) -> None:
    session = await manager.session("trunk")
    await session.execute(
        "import os\nx = [1]\nos.makedirs('deep/er')\nopen('deep/er/a b.txt', 'w').write('same')\n"
        "os.symlink('deep', 'link'); open('.hidden', 'w').close()"
    )
    fork = await manager.fork("trunk", "branch")
    run = await fork.execute("x.append(2)\nprint(x, open('deep/er/a b.txt').read(), os.readlink('link'))")
    assert run.text.endswith("[1, 2] same deep")
    assert run.notice is not None and run.notice.startswith("This session is a copy of another.")
    await fork.execute("open('deep/er/a b.txt', 'w').write('other')")
    assert (await session.execute("print(x, open('deep/er/a b.txt').read())")).text == "[1] same"


async def test_a_fork_takes_no_key_that_is_taken(manager: SessionManager) -> None:
    await manager.session("one")
    await manager.session("two")
    with pytest.raises(SettingsError, match="There is a session 'two'"):
        await manager.fork("one", "two")
    await manager.stop("two")
    with pytest.raises(SettingsError, match="or its files"):
        await manager.fork("one", "two")


async def test_a_fork_that_fails_leaves_nothing(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await manager.session("one")
    await session.execute("x = 1")

    async def fail(*_: object) -> None:
        raise SandboxError("No space is left on the engine's disk.")

    monkeypatch.setattr(manager.engine, "copy_volume", fail)
    with pytest.raises(SandboxError, match="No space"):
        await manager.fork("one", "two")
    assert [one.key for one in await manager.list(stopped=True)] == ["one"]
    assert (await session.execute("x")).text == "1"


async def test_a_workspace_over_its_limit_is_named_in_the_result(make_manager: MakeManager) -> None:
    manager = await make_manager(limits={"workspace_bytes": "1m"})
    session = await manager.session("large")
    run = await session.execute("n = open('big', 'wb').write(bytes(range(256)) * 8192)")
    assert run.status == "ok" and run.warning is not None
    assert "more than its limit of 1 MiB" in run.warning and run.warning in run.text
    run = await session.execute("import os; os.remove('big')")
    assert run.warning is None


async def test_an_error_for_want_of_room_says_what_to_do(manager: SessionManager) -> None:
    session = await manager.session("enospc")
    run = await session.execute("raise OSError(28, 'No space left on device')")
    assert run.status == "error" and run.message is not None and "disk is full" in run.message
