"""``tool install``, into a real Open WebUI; that it works is what all other tests of the tool begin with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .openwebui import PASSWORD, ROOT, TOOL, OpenWebUI, User

pytestmark = pytest.mark.timeout(900)


def install(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENWEBUI_")}
    return subprocess.run(
        [sys.executable, "-m", "session_manager.cli", "tool", "install", *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def by_password(name: str) -> dict[str, str]:
    return {"OPENWEBUI_EMAIL": f"{name}@example.org", "OPENWEBUI_PASSWORD": PASSWORD}


def test_it_is_installed_again_and_its_valves_stay(admin: User, webui: OpenWebUI) -> None:
    before = admin.ask("GET", f"/api/v1/tools/id/{TOOL}/valves")
    done = install(
        webui.url, "--id", "another", "--valve", "POOL_SIZE=1", "--valve", "DOCKER_IMAGE=7", **by_password("admin")
    )
    assert done.returncode == 0, done.stderr
    assert "Installed the tool another" in done.stdout and "Set POOL_SIZE, DOCKER_IMAGE." in done.stdout
    done = install(webui.url, "--id", "another", "--valve", "OUTPUT_CHARS=99", **by_password("admin"))
    assert "Updated the tool another" in done.stdout
    valves = admin.ask("GET", "/api/v1/tools/id/another/valves")
    assert (valves["POOL_SIZE"], valves["OUTPUT_CHARS"], valves["DOCKER_IMAGE"]) == (1, 99, "7")
    admin.ask("DELETE", "/api/v1/tools/id/another/delete")
    assert admin.ask("GET", f"/api/v1/tools/id/{TOOL}/valves") == before


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        ((), {}, "OPENWEBUI_EMAIL"),
        (
            (),
            {"OPENWEBUI_EMAIL": "admin@example.org", "OPENWEBUI_PASSWORD": "wrong"},
            "refused POST /auths/signin: 400",
        ),
        ((), {"OPENWEBUI_TOKEN": "wrong"}, "401"),
        (("--valve", "NO_SUCH=1"), by_password("admin"), "sets no valve of the tool. NAME=VALUE; there are CODE_INT"),
        (("--file", "README.md"), by_password("admin"), "no tool of Open WebUI's"),
        (("--id", "not-a-name"), by_password("admin"), "Only alphanumeric characters"),
    ],
)
def test_what_can_go_wrong_is_a_sentence(
    admin: User,
    webui: OpenWebUI,
    tool_file: Path,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    words: str,
) -> None:
    # the file that is installed: where only the valve is wrong, it is saved again, and other tests go on with it
    done = install(webui.url, "--file", str(tool_file), *arguments, **variables)
    assert done.returncode == 1
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_user_may_not(admin: User, user: User, webui: OpenWebUI) -> None:
    done = install(webui.url, "--id", "mine", **by_password("somebody"))
    assert done.returncode == 1 and "40" in done.stderr


def test_no_server_is_a_sentence() -> None:
    done = install("http://127.0.0.1:9")
    assert done.returncode == 1
    assert "No Open WebUI answers at http://127.0.0.1:9" in done.stderr and "--wait" in done.stderr
