"""The tool in a real Open WebUI, through its API as the page uses it, on containers."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import time
from typing import Any

import pytest
import requests

from tests.ask_endpoint import ScriptedEndpoint

from .conftest import OPTIONS
from .openwebui import ORDER, OpenWebUI, User, valves

pytestmark = pytest.mark.timeout(900)

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"


def statuses(message: dict[str, Any]) -> list[str]:
    return [one["description"] for one in message.get("statusHistory", [])]


def test_a_chat_remembers(admin: User) -> None:
    chat = admin.chat()
    chat.run("x = 40")
    chat.run("import math\ndef f(): return x + 2")
    answer = chat.run("print(f(), math.pi)")
    assert "42 3.14159" in answer["content"]
    shown = answer["statusHistory"]
    assert shown[-1]["done"] is True and shown[-1]["description"].startswith("Done in ")
    assert len(shown) <= 4


def test_code_that_fails_says_where(admin: User) -> None:
    answer = admin.chat().run("a = 1\nb = a / 0")
    assert "ZeroDivisionError" in answer["content"] and "----> 2 b = a / 0" in answer["content"]


def test_code_in_a_fence_or_indented_runs(admin: User) -> None:
    chat = admin.chat()
    assert "41" in chat.run("```python\nprint(41)\n```")["content"]
    assert "43" in chat.run("    y = 43\n    print(y)")["content"]


def test_two_users_and_two_chats_share_nothing(admin: User, user: User) -> None:
    mine, another, theirs = admin.chat(), admin.chat(), user.chat()
    mine.run("secret = 'mine'; open('secret.txt', 'w').write(secret)")
    for chat in (another, theirs):
        content = chat.run("import os\nprint('secret' in globals(), os.listdir())")["content"]
        assert "False" in content and "secret.txt" not in content
    assert "mine" in mine.run("print(secret)")["content"]


def test_a_plot_is_in_the_message_and_reaches_its_owner_and_the_model(
    admin: User, user: User, model: ScriptedEndpoint
) -> None:
    chat = user.chat()
    answer = chat.run(PLOT)
    (plot,) = [file for file in answer["files"] if file["type"] == "image"]
    content = user.ask("GET", f"/api/v1/files/{plot['id']}/content")
    assert content.startswith(b"\x89PNG")
    stranger = admin.add("stranger")
    refused = requests.get(
        f"{user.server.url}/api/v1/files/{plot['id']}/content",
        headers={"Authorization": f"Bearer {stranger.account['token']}"},
        timeout=60,
    )
    assert refused.status_code in (401, 403, 404)
    sent = json.dumps(model.requests[-1]["messages"])
    assert f"data:image/png;base64,{base64.b64encode(content).decode()[:200]}" in sent
    assert "base64" not in answer["content"]
    reopened = chat.message()
    assert [file["id"] for file in reopened["files"]] == [file["id"] for file in answer["files"]]


def test_a_file_of_the_user_s_is_read_once_and_again_when_another_comes(user: User) -> None:
    chat = user.chat()
    attached = user.upload("sales, 2013.csv", b"month,sold\n1,10\n2,32\n")
    code = "import pandas as pd\nprint(pd.read_csv('sales, 2013.csv').sold.sum())"
    assert "42" in chat.run(code, [attached])["content"]
    other = user.upload("sales, 2013.csv", b"month,sold\n1,1\n")
    assert "\n1" in chat.run(code, [other])["content"]


def test_a_file_that_the_code_made_is_downloaded_byte_for_byte(user: User) -> None:
    content = bytes(range(256)) * 400
    answer = user.chat().run("open('out.bin', 'wb').write(bytes(range(256)) * 400)")
    (made,) = [file for file in answer["files"] if file["type"] == "file"]
    assert made["name"] == "out.bin" and made["size"] == len(content)
    assert user.ask("GET", f"/api/v1/files/{made['id']}/content") == content


def test_stop_stops_the_cell_and_keeps_the_variables(user: User) -> None:
    chat = user.chat()
    chat.run("kept = 7")
    chat.send(f"{ORDER}run_python_code\nimport time\nfor _ in range(600): time.sleep(0.5)")
    deadline = time.monotonic() + 120
    while "Running" not in statuses(chat.message()):
        assert time.monotonic() < deadline, chat.message()
        time.sleep(0.2)
    chat.stop()
    chat.history.append({"role": "assistant", "content": ""})
    begun = time.monotonic()
    assert "[Done" in (content := chat.run("print(kept)")["content"]) and "7" in content
    assert time.monotonic() - begun < 60, "the cell that was stopped does not run on"


def test_too_long_and_too_large(admin: User, user: User) -> None:
    with valves(admin, CODE_INTERPRETER_TIMEOUT=2):
        chat = user.chat()
        chat.run("kept = 1")
        content = chat.run("import time; time.sleep(60)")["content"]
        assert "time limit of 2 s" in content and "Variables and files are kept" in content
        assert "[Done" in chat.run("kept")["content"]
    content = user.chat().run("hoard = bytearray(2_000_000_000)\nhoard[:] = b'x' * len(hoard)")["content"]
    assert "memory" in content.lower()


def test_valves_and_the_tool_s_text_change_under_a_session(admin: User, user: User, tool_text: str) -> None:
    chat = user.chat()
    chat.run("x = 1")
    with valves(admin, ADDITIONAL_CONTEXT="Prefer polars.", OUTPUT_CHARS=5000):
        assert "[Done" in (content := chat.run("x += 1; print(x)")["content"]) and "2" in content
        admin.save(f"{tool_text}\n# saved again\n")
        assert "3" in chat.run("x += 1; print(x)")["content"]


def test_the_model_reads_what_the_administrator_wrote(admin: User, user: User, model: ScriptedEndpoint) -> None:
    with valves(admin, ADDITIONAL_CONTEXT="Prefer polars over pandas."):
        user.chat().run("1")
    tools = {tool["function"]["name"]: tool["function"] for tool in model.requests[-1]["tools"]}
    description = tools["run_python_code"]["description"]
    assert "Prefer polars over pandas." in description and "stay from call to call" in description
    assert {"run_python_code", "restart_python", "list_python_files"} <= set(tools)


def test_files_are_listed_and_python_is_started_anew(user: User) -> None:
    chat = user.chat()
    chat.run("gone = 1; open('stays.txt', 'w').write('x')")
    chat.send(f"{ORDER}list_python_files")
    assert "stays.txt (1 bytes)" in chat.answer()["content"]
    chat.send(f"{ORDER}restart_python")
    assert "variables are gone" in chat.answer()["content"]
    assert (
        "False ['stays.txt']"
        in chat.run("import os\nprint('gone' in globals(), [name for name in os.listdir() if name[0] != '.'])")[
            "content"
        ]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"DOCKER_SOCKET": "unix:///nowhere/docker.sock"}, "nowhere"),
        ({"DOCKER_IMAGE": "no-such-image:1"}, "no-such-image"),
        ({"DOCKER_YAML_OPTIONS": "mem_limit: [1"}, "DOCKER_YAML_OPTIONS"),
        ({"DOCKER_YAML_OPTIONS": "privileged: true"}, "privileged"),
        ({"CODE_INTERPRETER_TIMEOUT": -1}, "CODE_INTERPRETER_TIMEOUT"),
    ],
)
def test_what_an_administrator_gets_wrong_is_a_sentence_in_the_chat(
    admin: User, user: User, change: dict[str, object], words: str
) -> None:
    with valves(admin, **change):
        answer = user.chat().run("1")
    assert words in answer["content"] and "Traceback" not in answer["content"]
    assert answer["statusHistory"][-1]["done"] is True


def test_many_chats_at_once_and_a_server_that_answers(admin: User, user: User, webui: OpenWebUI) -> None:
    slowest = 0.0
    with (
        valves(admin, SESSIONS_PER_USER=0),
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        runs = [threads.submit(user.chat().run, f"print({number} * 3)") for number in range(20)]
        while not all(run.done() for run in runs):
            begun = time.monotonic()
            assert requests.get(f"{webui.url}/health", timeout=60).ok
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.1)
    for number, run in enumerate(runs):
        assert str(number * 3) in run.result()["content"]
    assert slowest < 15, "the server was held up"


def test_a_session_outlives_a_restart_of_open_webui(user: User, webui: OpenWebUI) -> None:
    chat = user.chat()
    chat.run("survives = 6 * 7")
    webui.stop()
    webui.start()
    assert "42" in chat.run("print(survives)")["content"]


def test_the_options_of_the_administrator_hold(user: User) -> None:
    limit = int(OPTIONS.split()[1].removesuffix("m")) << 20
    content = user.chat().run(
        "print(open('/sys/fs/cgroup/memory.max').read())"
        " if __import__('os').path.exists('/sys/fs/cgroup/memory.max') else"
        " print(open('/sys/fs/cgroup/memory/memory.limit_in_bytes').read())"
    )["content"]
    assert str(limit) in content
