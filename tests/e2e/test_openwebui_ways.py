"""The ways by which calls come from a real Open WebUI: other kinds of chats, of models, of servers; and an image that
is not there yet."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from session_manager import SessionManager, SessionStatus, Settings
from session_manager.engine.docker_host import connect
from session_manager.images import ImageKind, ensure_image
from tests.ask_endpoint import MODEL, ScriptedEndpoint
from tests.image_registry import layer_with, published, registry

from .conftest import TOOL_FILE
from .openwebui import ORDER, ROOT, TOOL, OpenWebUI, User, saved, valves

pytestmark = pytest.mark.timeout(900)

PATIENCE = 400
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"


def sessions(namespace: str, *, stopped: bool = False) -> list[SessionStatus]:
    """The sessions there are, asked of the engine."""

    async def ask() -> list[SessionStatus]:
        async with SessionManager(Settings(namespace=namespace)) as manager:
            return list(await manager.list(stopped=stopped))

    return asyncio.run(ask())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_a_model_that_knows_nothing_of_tools(user: User, model: ScriptedEndpoint) -> None:
    chat = user.chat()
    chat.run("x = 40", calling="legacy")
    answer = chat.run(f"print(x + 2)\n{PLOT}", calling="legacy")
    assert "42" in answer["content"]
    assert len([file for file in answer["files"] if file["type"] == "image"]) == 1, "no plot is there twice"
    assert answer["statusHistory"][-1]["done"] is True
    assert "data:image" not in json.dumps(model.requests[-1]["messages"])


def test_a_temporary_chat_has_a_session_that_goes_early(
    admin: User, user: User, tool_text: str, model: ScriptedEndpoint, namespace: str
) -> None:
    chat = f"temporary:{uuid.uuid4()}"

    def run(code: str) -> None:
        before = len(model.requests)
        body = {
            "model": MODEL,
            "stream": True,
            "session_id": "of-a-test",
            "chat_id": chat,
            "id": str(uuid.uuid4()),
            "messages": [{"role": "user", "content": f"{ORDER}run_python_code\n{code}"}],
            "params": {"function_calling": "native"},
            "tool_ids": [TOOL],
        }
        user.ask("POST", "/api/chat/completions", body)
        until(lambda: len(model.requests) >= before + 2)

    def here() -> list[SessionStatus]:
        return [one for one in sessions(namespace, stopped=True) if one.key == f"chat {chat}"]

    with saved(admin, tool_text, "TEMPORARY_SECONDS = 600.0", "TEMPORARY_SECONDS = 8.0"):
        run("x = 41")
        run("print(x + 1)")
        assert "42" in json.dumps(model.requests[-1]["messages"][-1])
        assert len(here()) == 1
        until(lambda: not here())


def test_a_call_without_a_chat_has_a_session_of_its_own(user: User, namespace: str) -> None:
    def run(code: str) -> str:
        body = {
            "model": MODEL,
            "stream": False,
            "messages": [{"role": "user", "content": f"{ORDER}run_python_code\n{code}"}],
            "params": {"function_calling": "legacy"},
            "tool_ids": [TOOL],
        }
        answer = user.ask("POST", "/api/chat/completions", body)
        return str(answer["choices"][0]["message"]["content"])

    before = {one.container for one in sessions(namespace, stopped=True)}
    assert "42" in run("x = 42; print(x)")
    assert "False" in run("print('x' in globals())")
    until(lambda: all(one.kept or one.container in before for one in sessions(namespace, stopped=True)))


def test_a_user_s_own_wishes(admin: User, user: User) -> None:
    chat = user.chat()
    chat.run("kept = 42")
    user.wish(TIMEOUT=3, KEEP_SECONDS=4, SHOW_CODE=False)
    try:
        answer = chat.run("import time; time.sleep(60)")
        assert "time limit of 3 s" in answer["content"]
        assert not answer.get("sources") and not answer.get("code_executions")
        # the one who reaps looks once a minute
        until(lambda: "put away" in chat.run("print(kept)")["content"] or bool(time.sleep(20)))
    finally:
        user.wish()
    assert "42" in chat.run("print(kept)")["content"]


def test_an_image_that_is_not_there_yet(
    admin: User, user: User, tool_text: str, webui: OpenWebUI, namespace: str
) -> None:
    client = connect()
    default = ensure_image(client, ImageKind.DEFAULT, progress=print)
    gate = threading.Event()
    try:
        image = published(client, default, layer_with("opt/note", f"note {uuid.uuid4()}".encode()))
        with registry(*image, before_parts=lambda: gate.wait(15)) as address:
            reference = f"{address}/team/python:1"
            patience = saved(admin, tool_text, "PATIENCE = 20.0", "PATIENCE = 3.0")
            with patience, valves(admin, DOCKER_IMAGE=reference):
                chat = user.chat()
                answer = chat.run("print(open('/opt/note').read())")
                assert "still being made ready (Pulling" in answer["content"]
                assert answer["statusHistory"][-1]["done"] is True
                assert requests.get(f"{webui.url}/health", timeout=10).ok
                gate.set()
                until(lambda: "note " in chat.run("print(open('/opt/note').read())")["content"])
                until(lambda: all(one.kept for one in sessions(namespace)))  # what asks which packages it has
                client.remove_image(reference, force=True)
    finally:
        gate.set()
        client.close()


def test_several_workers_share_the_sessions(
    model: ScriptedEndpoint, environment: dict[str, str], tool_file: Path, tmp_path: Path
) -> None:
    server = OpenWebUI(tmp_path / "data", model.base_url, environment, workers=2)
    try:
        server.start()
        admin = server.sign_up("admin")
        admin.install(tool_file, DOCKER_IMAGE="example")
        admin.share()
        chat = admin.chat()
        chat.run("import os; count = 0")
        for number in range(1, 9):
            assert f"count {number}" in chat.run("count += 1; print('count', count)")["content"]
    finally:
        server.stop()


def test_a_wheel_on_a_mounted_path(model: ScriptedEndpoint, namespace: str, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", ROOT],
        check=True,
    )
    (wheel,) = (tmp_path / "wheels").iterdir()
    command = [sys.executable, "-m", "session_manager.cli", "tool", "show", "--requirement", wheel]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    (tmp_path / "tool.py").write_text(shown)
    # what pip installs goes into a folder of its own: the environment is for all tests, and has what the wheel needs
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DOCKER_INTERPRETER_")},
        "DOCKER_INTERPRETER_NAMESPACE": namespace,
        "PIP_TARGET": str(tmp_path / "installed"),
        "PYTHONPATH": str(tmp_path / "installed"),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
    }
    (tmp_path / "installed").mkdir()
    server = OpenWebUI(tmp_path / "data", model.base_url, environment, more={"OFFLINE_MODE": "False"})
    try:
        server.start()
        admin = server.sign_up("admin")
        bare = tmp_path / "bare.py"
        bare.write_text("".join(line for line in TOOL_FILE.read_text().splitlines(True) if "requirements:" not in line))
        admin.install(bare)
        admin.share()
        answer = admin.chat().run("print(6 * 7)")
        assert (
            "docker-interpreter is not installed where Open WebUI runs (session_manager is missing)"
            in answer["content"]
        )
        assert answer["statusHistory"][-1]["done"] is True
        admin.install(tmp_path / "tool.py")
        assert "42" in admin.chat().run("print(6 * 7)")["content"]
        assert (tmp_path / "installed" / "session_manager").is_dir()
    finally:
        server.stop()
