"""Other people's Jupyter clients, unchanged, on a session."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from session_manager import SessionManager, Settings
from tests.conftest import MakeSettings

# nbclient leaves the sockets of a kernel that died to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Their warnings come here, and in no other test."""
    yield
    gc.collect()


@pytest.fixture
def kernelspecs(tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two kernelspecs, one for a named session and one for throw-away ones, where Jupyter looks."""
    install = [sys.executable, "-m", "session_manager.cli", "kernelspec", "install", "--prefix", str(tmp_path)]
    for arguments in (["--name", "anew"], ["--name", "named", "--session", "jupyter/1"]):
        subprocess.run([*install, *arguments], check=True, capture_output=True)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    settings = make_settings()
    monkeypatch.setenv("DOCKER_INTERPRETER_NAMESPACE", settings.namespace)
    return settings


def notebook(*cells: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def texts(executed: nbformat.NotebookNode) -> list[str]:
    return [
        "".join(out.get("text", out.get("data", {}).get("text/plain", "")) for out in cell.outputs)
        for cell in executed.cells
    ]


async def test_nbclient_runs_a_notebook_on_a_throw_away_session(kernelspecs: Settings, manager: SessionManager) -> None:
    cells = (
        "x = 20",
        "import os; print(os.getcwd(), os.getuid())",
        "x + 1",
        "from IPython.display import HTML; HTML('<b>hi</b>')",
    )
    client = NotebookClient(notebook(*cells), kernel_name="anew", timeout=60)
    executed = await client.async_execute()
    assert texts(executed) == ["", "/mnt 1000\n", "21", "<IPython.core.display.HTML object>"]
    assert executed.cells[3].outputs[0].data["text/html"] == "<b>hi</b>"
    assert await manager.list() == [], "the session went with the client"


async def test_nbclient_sees_errors_and_dead_kernels(kernelspecs: Settings) -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        await NotebookClient(notebook("1 / 0"), kernel_name="anew", timeout=60).async_execute()
    with pytest.raises(Exception, match="(?i)kernel died"):
        await NotebookClient(notebook("import os; os._exit(1)"), kernel_name="anew", timeout=60).async_execute()


async def test_a_kernel_manager_interrupts_and_restarts(kernelspecs: Settings) -> None:
    kernel_manager = AsyncKernelManager(kernel_name="anew")
    await kernel_manager.start_kernel()
    client = kernel_manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        assert await kernel_manager.is_alive()
        msg_id = client.execute("import time; x = 1; time.sleep(60)")
        await asyncio.sleep(1)
        await kernel_manager.interrupt_kernel()
        reply = await client.get_shell_msg(timeout=30)
        assert reply["parent_header"]["msg_id"] == msg_id and reply["content"]["ename"] == "KeyboardInterrupt"
        await kernel_manager.restart_kernel()
        await client.wait_for_ready(timeout=60)
        content = (await client.execute("x", reply=True, timeout=30))["content"]
        assert content["ename"] == "NameError"
        assert await kernel_manager.is_alive()
    finally:
        client.stop_channels()
        await kernel_manager.shutdown_kernel(now=True)


async def test_a_named_session_is_shared_with_jupyter(kernelspecs: Settings, manager: SessionManager) -> None:
    session = await manager.session("jupyter/1")
    await session.execute("x = 'from the session'")
    kernel_manager = AsyncKernelManager(kernel_name="named")
    await kernel_manager.start_kernel()
    client = kernel_manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    reply = await client.execute("x += ', seen by jupyter'", reply=True, timeout=30)
    assert reply["content"]["status"] == "ok"
    client.stop_channels()
    await kernel_manager.cleanup_resources()  # lets go of the kernel without shutting it down
    assert (await session.execute("x")).text == "'from the session, seen by jupyter'"


def test_the_kernelspec_is_found_by_jupyter(kernelspecs: Settings) -> None:
    assert {"named", "anew"} <= set(KernelSpecManager().find_kernel_specs())


def test_jupyter_console_runs_on_a_session(kernelspecs: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_console", "--kernel=anew", "--simple-prompt"],
        input="print('twice', 21 * 2)\nimport os; print(os.getuid())\nexit()\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "twice 42" in done.stdout, done.stdout + done.stderr
    assert "1000" in done.stdout
