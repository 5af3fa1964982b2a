"""Managers that are killed at any moment, and many that work on the same sessions, on a real Docker engine."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time

import pytest

from session_manager import SessionManager, Settings
from session_manager.registry import LABEL_NAMESPACE
from tests.conftest import MakeManager, MakeSettings, run_python

KILLS = 20
KEYS = [f"killed/{i}" for i in range(3)]
LIMITS = {"idle_timeout": 2.0, "idle_margin": 1.0, "orphan_grace": 2.0, "start_timeout": 30.0}

BUSY = """
import asyncio, itertools, random
keys = ["killed/0", "killed/1", "killed/2"]

async def work(manager, key):
    for n in itertools.count():
        session = await manager.session(key)
        await session.execute("open('n', 'a').write('.')\\nimport time; time.sleep(0.1)")
        if n % 3 == 2:
            await manager.stop(key)
        elif n % 3 == 1:
            await session.save_variables()
        await asyncio.sleep(random.uniform(0, 0.5))

async def main():
    manager = SessionManager(settings)
    manager._pool.start()
    print("begun", flush=True)
    throw_away = await manager.throw_away()
    await asyncio.gather(*(work(manager, key) for key in keys), throw_away.execute("while True: pass", timeout=None))

asyncio.run(main())
"""
"""Starts, runs, reaps, fills its pool and stops, all the time."""


HOW_MANY = "import os\nprint(os.path.getsize('n') if os.path.exists('n') else 0)"


def begin(code: str, settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*run_python(code, settings), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def kill_after(seconds: float, settings: Settings) -> None:
    process = await asyncio.to_thread(begin, BUSY, settings)
    assert process.stdout is not None
    assert (await asyncio.to_thread(process.stdout.readline)).strip() == "begun"
    await asyncio.sleep(seconds)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.communicate)


@pytest.mark.timeout(600)
async def test_whenever_a_manager_is_killed_the_next_finds_a_state_that_works(
    make_settings: MakeSettings, make_manager: MakeManager
) -> None:
    moments = random.Random()  # noqa: S311 - whatever it is, it is in the report of a failure
    settings = make_settings(limits=LIMITS, pool={"size": 1})
    dots = 0
    for number in range(KILLS):
        seconds = moments.uniform(0, 5)
        await kill_after(seconds, settings)
        manager = SessionManager(settings)
        runs = []
        for key in KEYS:
            session = await asyncio.wait_for(manager.session(key), 60)
            run = await asyncio.wait_for(
                session.execute("print(len(open('n').read()) if __import__('os').path.exists('n') else 0)"), 60
            )
            assert run.status == "ok", (number, seconds, key, run.text)
            runs.append(int(run.text.splitlines()[-1]))
        assert sum(runs) >= dots, f"files were lost after {seconds:.2f} s of life {number}"
        dots = sum(runs)
        await manager.detach()
    assert dots > KILLS, "the programs did get to work"
    # the limits pass, and nothing is left but the workspaces of the keys
    watcher = await make_manager(limits=LIMITS)
    async with asyncio.timeout(90):
        while True:
            await watcher._reaper.sweep()
            labels = {LABEL_NAMESPACE: settings.namespace}
            containers = await watcher.engine.list(labels)
            sessions = await watcher.list(stopped=True)
            volumes = {volume.name for volume in await watcher.engine.list_volumes(labels)}
            known = {one.key for one in sessions} <= set(KEYS)
            if not containers and known and not [name for name in volumes if name.endswith("-renaming")]:
                break
            await asyncio.sleep(0.5)


COUNT = """
import asyncio, random, sys
async def main():
    rounds = int(sys.argv[-1])
    async with SessionManager(settings) as manager:
        for n in range(rounds):
            for i in random.sample(range(5), 5):
                session = await manager.session(f"counter/{i}")
                code = "before = globals().get('n', 0)\\nimport time; time.sleep(0.002)\\nn = before + 1\\nprint(n)"
                run = await session.execute(code)
                print(i, run.status, run.text.split()[-1], flush=True)
asyncio.run(main())
"""


@pytest.mark.timeout(400)
async def test_ten_programs_count_in_five_sessions_and_no_increment_is_lost(
    make_settings: MakeSettings, manager: SessionManager
) -> None:
    programs, rounds = 10, 4
    processes = [await asyncio.to_thread(begin, COUNT, make_settings(), str(rounds)) for _ in range(programs)]
    results = await asyncio.gather(*(asyncio.to_thread(process.communicate, None, 300) for process in processes))
    assert [process.returncode for process in processes] == [0] * programs, results
    counted: dict[str, list[int]] = {str(i): [] for i in range(5)}
    for out, _ in results:
        for line in out.splitlines():
            key, status, count = line.split()
            assert status == "ok"
            counted[key].append(int(count))
    for counts in counted.values():
        assert sorted(counts) == list(range(1, programs * rounds + 1))
    assert len(await manager.list()) == 5


@pytest.mark.timeout(400)
async def test_fifty_sessions_stop_in_seconds(make_manager: MakeManager) -> None:
    manager = await make_manager(container={"mem_limit": "256m"}, saving={"enabled": False})
    gate = asyncio.Semaphore(8)

    async def start(number: int) -> None:
        async with gate:
            await manager.session(f"fifty/{number}")

    await asyncio.gather(*(start(number) for number in range(50)))
    begin = time.monotonic()
    await manager.close()
    assert time.monotonic() - begin < 60, "a generous limit: the engine removes them one after another"
    assert await (await make_manager()).list() == []
