"""Floods, bombs, and an engine or container that goes away, on a real Docker engine."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import tarfile
import time

import docker
import pytest

from session_manager import (
    Display,
    EngineUnavailable,
    ImageMissing,
    KernelStartFailed,
    Output,
    Session,
    SessionManager,
    reaper,
)
from tests.conftest import MakeManager


def resident_peak() -> int:
    """The largest amount of memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_20000_displays_while_the_client_stalls_and_none_is_lost(session: Session) -> None:
    seen = 0

    def stall(_output: Output) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            time.sleep(2)  # the whole event loop stands still

    run = await session.execute(
        "from IPython.display import display\nfor i in range(20_000): display({'text/plain': str(i)}, raw=True)",
        on_output=stall,
        timeout=150,
    )
    assert run.status == "ok" and not run.output_incomplete
    assert seen == 20_000
    texts = [output.data["text/plain"] for output in run.outputs if isinstance(output, Display)]
    assert texts == [str(i) for i in range(20_000)]


async def test_200_megabytes_of_output_within_bounded_memory(session: Session) -> None:
    await session.execute("1")
    before = resident_peak()
    run = await session.execute("for i in range(200): print('y' * 1_000_000)\nprint('the end')", timeout=150)
    assert run.status == "ok" and run.text.endswith("the end")
    assert resident_peak() - before < 100 << 20
    one = await session.execute("print('z' * 200_000_000)", timeout=150)
    assert one.status == "ok" and len(one.text) < 25_000
    assert resident_peak() - before < 100 << 20


async def test_an_interrupt_gets_through_a_flood(session: Session) -> None:
    run = await session.execute("while True: print('flood' * 1000)", timeout=2)
    assert run.status == "interrupted"
    assert run.duration < 60
    assert (await session.execute("1 + 1")).text == "2"


async def test_a_memory_bomb_ends_python_alone(manager: SessionManager) -> None:
    session, other = await manager.session("bomb"), await manager.session("beside")
    await other.execute("x = 1")
    await session.execute("open('kept.txt', 'w').write('here')")
    code = "open('partial.csv', 'w').write('a,b')\nhoard = []\nwhile True: hoard.append(bytearray(10_000_000))"
    run = await session.execute(code, timeout=60)
    assert run.status == "out_of_memory" and run.variables_kept is False
    assert run.files_complete and [(file.path, file.kind) for file in run.files] == [("partial.csv", "new")]
    assert run.message is not None and "1 GiB" in run.message
    assert (await session.execute("open('kept.txt').read()")).text == "'here'"
    assert (await other.execute("x")).text == "1"


async def test_a_fork_bomb_stays_inside(manager: SessionManager, hasty_manager: SessionManager) -> None:
    session, other = await hasty_manager.session("fork"), await manager.session("beside")
    run = await session.execute("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout=2)
    assert run.status in ("interrupted", "killed", "died")
    assert (await other.execute("1 + 1", timeout=30)).text == "2"
    assert (await session.execute("2 + 2", timeout=60)).text == "4"


async def test_a_container_removed_by_hand_in_mid_cell(session: Session, client: docker.APIClient) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(60)", on_output=lambda _: begun.set())
    )
    await begun.wait()
    await asyncio.to_thread(client.remove_container, session.container_name, force=True)
    run = await asyncio.wait_for(task, 60)
    assert run.status == "container_removed" and run.variables_kept is False
    assert run.message is not None and "container was stopped or removed" in run.message
    after = await session.execute("1 + 1")
    assert after.text == "2" and after.notice is None


async def test_a_container_removed_by_hand_between_cells(manager: SessionManager, client: docker.APIClient) -> None:
    session = await manager.session("by hand")
    await session.execute("x = 1; open('kept.txt', 'w').write('here')")
    await asyncio.to_thread(client.remove_container, session.container_name, force=True)
    run = await session.execute("print('x' in globals(), open('kept.txt').read())")
    assert run.status == "ok" and run.text.endswith("False here")
    assert run.notice is not None and "variables are gone, files in the workspace are kept" in run.notice


async def test_a_container_paused_by_hand_says_so(manager: SessionManager, client: docker.APIClient) -> None:
    session = await manager.session("paused")
    name = session.container_name
    await manager.detach()
    client.pause(name)
    try:
        again = SessionManager(manager.settings)
        with pytest.raises(Exception, match="paused.*docker unpause"):
            await again.session("paused")
        await again.detach()
    finally:
        client.unpause(name)


async def test_a_supervisor_that_is_gone_costs_the_container(
    hasty_manager: SessionManager, client: docker.APIClient
) -> None:
    session = await hasty_manager.throw_away()
    # stopped, as code inside could do were it allowed to: it answers nothing
    pid = client.inspect_container(session.container_name)["State"]["Pid"]
    await session.execute("open('kept.txt', 'w').write('here')")
    task = asyncio.create_task(
        session.execute(
            "import time\nwhile True:\n    try: time.sleep(1)\n    except KeyboardInterrupt: pass", timeout=1
        )
    )
    await asyncio.sleep(0.5)
    os.kill(pid, signal.SIGSTOP)
    run = await asyncio.wait_for(task, 90)
    assert run.status == "killed"
    assert (await session.execute("open('kept.txt').read()")).text == "'here'"


async def test_a_session_whose_supervisor_is_stopped_is_reaped_with_its_files_kept(
    make_manager: MakeManager, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "STATUS_TIMEOUT", 0.5)
    manager = await make_manager(limits={"idle_timeout": 2})
    session = await manager.session("stopped")
    await session.execute("open('kept.txt', 'w').write('here')")
    os.kill(client.inspect_container(session.container_name)["State"]["Pid"], signal.SIGSTOP)
    async with asyncio.timeout(60):
        while await manager.engine.inspect(session.container_name) is not None:
            await manager._reaper.sweep()
            await asyncio.sleep(0.2)
    run = await session.execute("open('kept.txt').read()")
    assert run.text.endswith("'here'") and run.notice is not None


async def test_20_sessions_at_once(manager: SessionManager) -> None:
    sessions = await asyncio.gather(*(manager.session(f"many/{i}") for i in range(20)))
    runs = await asyncio.gather(*(session.execute(f"{i} * 2") for i, session in enumerate(sessions)))
    assert [run.text for run in runs] == [str(i * 2) for i in range(20)]
    assert len(await manager.list()) == 20


async def test_no_engine(make_manager: MakeManager) -> None:
    manager = await make_manager(docker_host="unix:///nowhere/docker.sock")
    with pytest.raises(EngineUnavailable, match="No container engine answers at unix:///nowhere/docker.sock"):
        await manager.session("x")


async def test_no_image(make_manager: MakeManager) -> None:
    manager = await make_manager(image="no-such/image:1")
    with pytest.raises(ImageMissing, match="no-such/image:1"):
        await manager.session("x")


async def test_an_image_that_is_no_session_image(make_manager: MakeManager, client: docker.APIClient) -> None:
    base = "docker-interpreter-test/empty:1"
    client.import_image_from_data(empty_tar(), repository=base.split(":")[0], tag="1")
    try:
        manager = await make_manager(image=base)
        with pytest.raises((KernelStartFailed, Exception), match="(?i)no such file|session image|doctor"):
            await manager.session("x")
        assert [one for one in client.containers(all=True) if one["Image"] == base] == []
    finally:
        client.remove_image(base, force=True)


def empty_tar() -> bytes:
    """A file system with nothing in it but a file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("nothing"))
    return buffer.getvalue()
