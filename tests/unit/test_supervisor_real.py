"""The supervisor with the kernel that containers run."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from .supervised import KERNEL_IMAGE, PATIENCE, Control, Supervised, wait_until


@pytest.fixture(scope="module")
def real() -> Iterator[Supervised]:
    with tempfile.TemporaryDirectory(prefix="sup-") as name:
        supervised = Supervised(Path(name), KERNEL_IMAGE, {"idle_timeout": 600})
        yield supervised
        supervised.stop()
        assert supervised.process.returncode == 0, (Path(name) / "log").read_text()


@pytest.fixture
def jupyter(real: Supervised) -> Iterator[tuple[Control, BlockingKernelClient]]:
    """A connection to the supervisor, and one to its kernel."""
    control = real.attached()
    connection = control.request("attach")["connection"]
    client = BlockingKernelClient()
    client.load_connection_info(connection)
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE)
    yield control, client
    client.stop_channels()
    control.close()


def execute(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """What the reply says."""
    content: dict[str, Any] = client.execute_interactive(
        code, timeout=PATIENCE, output_hook=lambda _: None, user_expressions={"x": "x"}
    )["content"]
    return content


def test_a_real_kernel_is_watched_and_interrupted(jupyter: tuple[Control, BlockingKernelClient]) -> None:
    control, client = jupyter
    assert execute(client, "x = 41 + 1")["status"] == "ok"
    msg_id = client.execute("import time; time.sleep(60)", reply=False)
    wait_until(lambda: control.request("status")["busy"])
    control.request("interrupt")
    reply = client.get_shell_msg(timeout=PATIENCE)
    assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (msg_id, "KeyboardInterrupt")
    status = control.request("status")
    assert status["busy"] is False
    assert status["last_cell"] == {"msg_id": msg_id, "ok": False, "ename": "KeyboardInterrupt", "evalue": ""}
    content = execute(client, "pass")
    assert content["user_expressions"]["x"]["data"] == {"text/plain": "42"}
    assert control.request("status")["last_cell"]["ok"] is True


def test_a_real_kernel_that_is_killed_is_followed_by_a_fresh_one(
    real: Supervised, jupyter: tuple[Control, BlockingKernelClient]
) -> None:
    control, client = jupyter
    generation = control.request("status")["kernel"]["generation"]
    client.execute("import os, signal; x = 1; os.kill(os.getpid(), signal.SIGKILL)", reply=False)
    assert control.event(state="dead", generation=generation)["signal"] == signal.SIGKILL
    control.request("restart")
    control.event(state="ready", generation=generation + 1)
    fresh = BlockingKernelClient()
    fresh.load_connection_info(control.request("attach")["connection"])
    fresh.start_channels()
    fresh.wait_for_ready(timeout=PATIENCE)
    assert execute(fresh, "y = 1")["user_expressions"]["x"]["ename"] == "NameError"
    fresh.stop_channels()


def ask(client: BlockingKernelClient, channel: str, msg_type: str, content: dict[str, Any], **header: str) -> Any:
    """The content of a reply of the kernel's."""
    message = client.session.msg(msg_type, content)
    message["header"].update(header)
    getattr(client, f"{channel}_channel").send(message)
    while True:
        reply = getattr(client, f"get_{channel}_msg")(timeout=PATIENCE)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            return reply["content"]


def printed(messages: list[dict[str, Any]]) -> str:
    return "".join(one["content"].get("text", "") for one in messages if one["header"]["msg_type"] == "stream")


def test_a_real_kernel_gives_out_what_it_published_while_a_cell_runs(
    jupyter: tuple[Control, BlockingKernelClient],
) -> None:
    control, client = jupyter
    earlier = client.execute("print('earlier')", reply=True, timeout=PATIENCE)["parent_header"]["msg_id"]
    running = client.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)", reply=False)
    found: dict[str, Any] = {}

    def has_begun() -> bool:
        found.update(ask(client, "control", "replay_request", {"cell": running}))
        return printed(found["messages"]) == "begun\n"

    wait_until(has_begun)
    assert (found["status"], found["whole"]) == ("ok", True)
    assert {one["parent_header"]["msg_id"] for one in found["messages"]} == {running}
    types = [one["header"]["msg_type"] for one in found["messages"]]
    assert types[:2] == ["status", "execute_input"]
    first = found["messages"][1]["header"]["msg_id"]
    later = ask(client, "control", "replay_request", {"after_message": first})
    assert (printed(later["messages"]), later["gap"]) == ("begun\n", False)
    assert ask(client, "control", "replay_request", {"after_message": "nobody's"})["gap"] is True
    assert printed(ask(client, "control", "replay_request", {"cell": earlier})["messages"]) == "earlier\n"
    assert ask(client, "control", "replay_request", {"start": found["next"] + 1000})["whole"] is True
    assert control.request("status")["running"]["msg_id"] == running
    assert control.request("interrupt", cell=running)["interrupted"] is True
    assert client.get_shell_msg(timeout=PATIENCE)["content"]["ename"] == "KeyboardInterrupt"


def test_a_real_kernel_is_asked_beside_a_cell(jupyter: tuple[Control, BlockingKernelClient]) -> None:
    control, client = jupyter
    running = client.execute("import time\nwhile True: time.sleep(0.01)", reply=False)
    wait_until(lambda: control.request("status")["running"])
    made = ask(client, "control", "create_subshell_request", {})["subshell_id"]
    content: dict[str, Any] = {"code": "pri", "cursor_pos": 3}
    assert "print" in ask(client, "shell", "complete_request", content, subshell_id=made)["matches"]
    listed = ask(client, "shell", "variables_request", {"seconds": 1.0}, subshell_id=made)["variables"]
    assert "time" in {variable["name"] for variable in listed} or listed == []  # which are worth listing is its affair
    ask(client, "control", "delete_subshell_request", {"subshell_id": made})
    control.request("interrupt", cell=running)
    assert client.get_shell_msg(timeout=PATIENCE)["parent_header"]["msg_id"] == running


def test_a_real_kernel_says_how_much_the_workspace_holds(
    real: Supervised, jupyter: tuple[Control, BlockingKernelClient]
) -> None:
    _, client = jupyter

    def held() -> int:
        size: int = client.execute("pass", reply=True, timeout=PATIENCE)["metadata"]["workspace_bytes"]
        return size

    before = held()
    (real.workspace / "large").write_bytes(b"x" * 1_000_000)
    wait_until(lambda: held() >= before + 1_000_000)
