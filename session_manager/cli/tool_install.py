"""The command ``tool install``: puts the tool into an Open WebUI, through its API."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml
from rich.console import Console

from ..errors import HostError, SandboxError
from ..open_webui_loading import read_frontmatter
from ..single_file import tool_path

TOKEN = "OPENWEBUI_TOKEN"  # noqa: S105 - the name of a variable
EMAIL = "OPENWEBUI_EMAIL"
PASSWORD = "OPENWEBUI_PASSWORD"  # noqa: S105 - the name of a variable
REQUEST_SECONDS = 120.0
"""Open WebUI answers only when it has installed what a tool requires."""
PAUSE = 1.0
EVERYBODY = {"principal_type": "user", "principal_id": "*", "permission": "read"}


class InstallFailed(HostError):
    """Open WebUI can't be reached, or would not do it."""


class OpenWebUI:
    """The API of one server, as an administrator."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = requests.Session()
        self._http.headers["Accept"] = "application/json"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait(self, seconds: float) -> None:
        """Wait until the server answers, which takes a minute where it has just been started.

        :raises InstallFailed: it does not.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self._http.get(f"{self.url}/health", timeout=REQUEST_SECONDS).ok:
                    return
                problem = "it says that it is not ready"
            except requests.RequestException as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise InstallFailed(
                    f"No Open WebUI answers at {self.url}: {problem}.",
                    "Is the address right? `--wait SECONDS` waits for one that is being started.",
                )
            time.sleep(PAUSE)

    def sign_in(self, environment: Mapping[str, str]) -> None:
        """Become an administrator, by a token or by email address and password.

        :raises InstallFailed: they are missing, or Open WebUI does not take them.
        """
        token = environment.get(TOKEN)
        if not token:
            email, password = environment.get(EMAIL), environment.get(PASSWORD)
            if not (email and password):
                raise InstallFailed(
                    "An administrator of Open WebUI has to do this.",
                    f"Set {EMAIL} and {PASSWORD}, or {TOKEN} to an API key (Settings, Account).",
                )
            token = str(self.ask("POST", "/auths/signin", {"email": email, "password": password})["token"])
        self._http.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API; what it answers, from JSON.

        :raises InstallFailed: it can't be reached, or refuses; in its words.
        """
        answer = self._request(method, path, body)
        if not answer.ok:
            raise InstallFailed(f"Open WebUI refused {method} {path}: {detail(answer)}.")
        try:
            return answer.json()
        except ValueError:
            raise InstallFailed(f"What answers at {self.url} is no Open WebUI.") from None

    def has_tool(self, name: str) -> bool:
        """Whether there is a tool of this id.

        :raises InstallFailed: as :meth:`ask`; also where this account may not see tools.
        """
        answer = self._request("GET", f"/tools/id/{name}")
        if answer.ok or answer.status_code == 404:
            return answer.ok
        if answer.status_code == 401 and self.ask("GET", "/auths/")["role"] == "admin":
            return False  # which is how it says that there is none
        raise InstallFailed(f"Open WebUI does not let this account install tools: {detail(answer)}.")

    def _request(self, method: str, path: str, body: object = None) -> requests.Response:
        try:
            return self._http.request(method, f"{self.url}/api/v1{path}", json=body, timeout=REQUEST_SECONDS)
        except requests.RequestException as error:
            raise InstallFailed(f"Open WebUI at {self.url} can't be reached: {error}.") from error


def detail(answer: requests.Response) -> str:
    """What a refusal says."""
    try:
        said = answer.json().get("detail")
    except (ValueError, AttributeError):
        said = answer.text[:200]
    return f"{answer.status_code} {said or answer.reason}".rstrip(".")


def valves_of(words: Sequence[str], specification: Mapping[str, Any]) -> dict[str, object]:
    """Valves from ``NAME=VALUE``, each of the type that the tool says.

    :raises InstallFailed: there is no such valve, or it is no such value.
    """
    known = specification.get("properties") or {}
    found: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise InstallFailed(f"{word!r} sets no valve of the tool.", f"NAME=VALUE; there are {', '.join(known)}.")
        try:
            found[name] = value if known[name].get("type") == "string" else yaml.safe_load(value)
        except yaml.YAMLError:
            raise InstallFailed(f"{value!r} is no value for the valve {name}.") from None
    return found


def install(url: str, name: str, file: Path | None, valves: Sequence[str], *, public: bool, wait: float) -> int:
    """Make or change the tool of this id, set valves, and let everybody use it where that is asked for; 0.

    :raises SandboxError: the file is no tool; Open WebUI can't be reached, or refuses.
    :raises OSError: the file can't be read.
    """
    text = (file or tool_path()).read_text(encoding="utf-8")
    front = read_frontmatter(text)
    if "title" not in front:
        raise SandboxError(f"{file or tool_path()} is no tool of Open WebUI's.", "`tool check` says what is wrong.")
    console = Console(highlight=False)
    server = OpenWebUI(url)
    try:
        server.wait(wait)
        server.sign_in(os.environ)
        there = server.has_tool(name)
        form = {
            "id": name,
            "name": front["title"],
            "content": text,
            "meta": {"description": front.get("description", "")},
        }
        server.ask("POST", f"/tools/id/{name}/update" if there else "/tools/create", form)
        console.print(f"{'Updated' if there else 'Installed'} the tool {name} at {server.url}.")
        if valves:
            wanted = valves_of(valves, server.ask("GET", f"/tools/id/{name}/valves/spec") or {})
            now = server.ask("GET", f"/tools/id/{name}/valves") or {}
            server.ask("POST", f"/tools/id/{name}/valves/update", {**now, **wanted})
            console.print(f"Set {', '.join(wanted)}.")
        if public:
            server.ask("POST", f"/tools/id/{name}/access/update", {"access_grants": [EVERYBODY]})
            console.print("Every user may use it.")
    finally:
        server.close()
    return 0
