"""The commands ``tool check`` and ``tool show``: Open WebUI's tool, loaded and called as Open WebUI does it."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import re
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.text import Text

from ..chat.managers import close_all
from ..engine.docker_host import resolve_docker_host
from ..errors import HostError, SandboxError
from ..open_webui_loading import load_tool, offered, read_frontmatter, rewritten_places, specification
from ..outputs import strip_escapes
from ..settings import Settings
from ..settings_sources import PREFIX
from ..single_file import tool_path
from .exits import FAILED
from .tables import plain, print_table

CARRIES = "\n_install_package(_SOURCES)\n"
METHODS = ("run_python_code", "restart_python", "list_python_files")
NEEDS = "needs Open WebUI: plots and files are handed over there"

Step = Callable[[], Awaitable[str]]


def show(requirement: str | None) -> int:
    """Print the tool's text, to be pasted into Open WebUI; ``requirement`` is what it has Open WebUI install.

    :raises SandboxError: that would be half of one.
    """
    text = tool_path().read_text(encoding="utf-8")
    if requirement is not None:
        if "," in requirement or "\n" in requirement:
            raise SandboxError("Open WebUI splits requirements at commas.", "Name one, such as the path of a wheel.")
        text = re.sub(r"^requirements:.*$", lambda _: f"requirements: {requirement}", text, count=1, flags=re.MULTILINE)
    print(text, end="")
    return 0


class Checked:
    """The tool of one file, and what was found of it."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.settings = settings
        self.text = path.read_text(encoding="utf-8")
        self.tools: Any = None
        self.background: set[asyncio.Task[Any]] = set()
        self.chat = f"tool-check-{uuid.uuid4().hex[:8]}"
        self.events: list[dict[str, Any]] = []

    async def frontmatter(self) -> str:
        """The docstring on the first line, with a word and a text in each line."""
        found = read_frontmatter(self.text)
        if not found:
            raise HostError('The first line is not exactly """, or no word and text follow.')
        if missing := [name for name in ("title", "version", "requirements") if name not in found]:
            raise HostError(f"The frontmatter has no {', '.join(missing)}.")
        if bad := [one for one in found["requirements"].split(",") if re.search(r"[<>]", one)]:
            raise HostError(f"Open WebUI splits requirements at commas: {bad[0].strip()!r} is half of one.")
        return f"{found['title']} {found['version']}"

    async def rewriting(self) -> str:
        """Nothing in the text that Open WebUI would change."""
        for line, words in rewritten_places(self.text):
            raise HostError(f"Line {line} says {words!r}, which Open WebUI changes.")
        return "unchanged"

    async def load(self) -> str:
        """Run the text in a bare module, and make the tool."""
        loaded = load_tool(self.text)
        self.tools, self.background = loaded.instance, loaded.module.running
        # as the options of this command say it, which an administrator says with the valves
        socket = resolve_docker_host(self.settings.docker_host)
        self.tools.valves = loaded.module.Tools.Valves(DOCKER_IMAGE=self.settings.image or "", DOCKER_SOCKET=socket)
        os.environ[f"{PREFIX}ENGINE"] = self.settings.engine
        return f"{len(type(self.tools.valves).model_fields)} valves"

    async def methods(self) -> str:
        """What a model is offered, each with a description and with the types of its parameters."""
        found = {method.__name__: method for method in offered(self.tools)}
        if set(found) != set(METHODS):
            raise HostError(f"It offers {', '.join(found)}.")
        for name, method in found.items():
            if not specification(method)["description"] or not asyncio.iscoroutinefunction(method):
                raise HostError(f"{name} has no description, or would hold the server up.")
        return ", ".join(found)

    async def call(self, name: str, *, expect: str, **arguments: object) -> str:
        """Call a method as Open WebUI does; what it says."""

        async def emit(event: dict[str, Any]) -> None:
            self.events.append(event)

        self.events.clear()
        given: dict[str, object] = {
            "__user__": {"id": "tool-check", "valves": type(self.tools).UserValves()},
            "__metadata__": {"chat_id": self.chat},
            "__event_emitter__": emit,
            "__chat_id__": self.chat,
            **arguments,
        }
        method = getattr(self.tools, name)
        wanted = inspect.signature(method).parameters
        result = await method(**{key: value for key, value in given.items() if key in wanted})
        text = result if isinstance(result, str) else str(result[0])
        if expect not in text:
            raise HostError(f"It says: {text[:300]}")
        statuses = [event["data"] for event in self.events if event["type"] == "status"]
        if name == "run_python_code" and (not statuses or statuses[-1].get("done") is not True):
            raise HostError("The last status is not closed.")
        return text.split("\n")[-1][:60]

    async def clean_up(self) -> str:
        """Remove the session that was used."""
        from ..chat.managers import chat_manager
        from ..chat.valves import settings_from

        if self.background:  # which may have a session of its own, to learn which packages there are
            await asyncio.wait(self.background)
        async with chat_manager(settings_from(self.tools.valves.model_dump())) as chats:
            await chats.manager.stop(f"chat {self.chat}", owner="openwebui tool-check", purge=True)
        await close_all()
        return "removed"


def use_package_of(text: str) -> None:
    """Where a file carries the package in it, begin anew with that one, which is to be checked."""
    if CARRIES not in text:
        return
    load_tool(text)
    folder = sys.path[0]  # where it has put its package
    if not __file__.startswith(f"{folder}{os.sep}"):
        arguments = [sys.executable, "-m", "session_manager.cli", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONPATH": folder})  # noqa: S606


async def check(settings: Settings, path: Path | None) -> int:
    """Check the tool's file, and show what was found; 1 where something is wrong.

    :raises SandboxError: the file is missing.
    :raises OSError: it can't be read.
    """
    checked = Checked(path or tool_path(), settings)
    use_package_of(checked.text)
    steps: list[tuple[str, Step]] = [
        ("frontmatter", checked.frontmatter),
        ("text is left alone", checked.rewriting),
        ("loads", checked.load),
        ("methods", checked.methods),
        ("run_python_code", lambda: checked.call("run_python_code", code="x = 6 * 7\nprint(x)", expect="42")),
        ("variables stay", lambda: checked.call("run_python_code", code="print(x + 1)", expect="43")),
        ("list_python_files", lambda: checked.call("list_python_files", expect="")),
        ("restart_python", lambda: checked.call("restart_python", expect="variables are gone")),
        ("clean up", checked.clean_up),
    ]
    table = plain("check", "", "")
    failed = False
    for name, step in steps:
        if failed and not (name == "clean up" and checked.tools is not None):
            table.add_row(name, Text("not done", "dim"), "")
            continue
        try:
            said = await step()
        except (SandboxError, AttributeError, NameError, TypeError, ValueError) as error:
            failed = True
            table.add_row(name, Text("failed", "bold red"), strip_escapes(str(error)))
        else:
            table.add_row(name, Text("ok", "green"), strip_escapes(said))
    if importlib.util.find_spec("open_webui") is None:
        table.add_row("plots and files", Text("not done", "dim"), NEEDS)
    print_table(table)
    return FAILED if failed else 0
