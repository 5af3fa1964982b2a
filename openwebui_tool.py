"""
title: Python sessions
author: DockerInterpreter contributors
description: A Python session for every chat, each in a Docker container of its own: variables, imports and files stay.
version: 0.1.0
licence: MIT
required_open_webui_version: 0.12.0
requirements: docker~=7.1, jupyter_client~=8.10, pyzmq~=27.0, nbformat~=5.10
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

from pydantic import BaseModel, Field

logger = logging.getLogger(__name__)

MISSING = (
    "The Python package docker-interpreter is not installed where Open WebUI runs ({name} is missing), so no code can"
    " be run. An administrator installs it there: `pip install docker-interpreter` (see the tool's documentation)."
)
YAML_OPTIONS = """\
# Options of docker-py's container create, for each chat's container.
mem_limit: "1g"
network_disabled: true
working_dir: /mnt
# volumes: ["/tmp:/mnt/shared"]   # Careful: ALL chats of ALL users then share that folder of the host.
"""
PATIENCE = 20.0  # seconds for a session to start before the chat is told to try again
TEMPORARY_SECONDS = 600.0  # after the last cell of a temporary chat, until its session is removed
MOST_EMBEDS = 4
EMBED_CHARS = 8_000_000
SCRIPT = (
    "<script>const tell=()=>parent.postMessage("
    "{type:'iframe:height',height:document.documentElement.scrollHeight},'*');"
    "new ResizeObserver(tell).observe(document.documentElement);addEventListener('load',tell)</script>"
)
DESCRIPTION = """{description}
{context}

:param code: The Python code to run.
"""


class Tools:
    """What the model may call: run_python_code, restart_python, list_python_files."""

    class Valves(BaseModel):
        """What an administrator sets."""

        CODE_INTERPRETER_TIMEOUT: float = Field(120, description="Seconds a call may run before it is interrupted.")
        ADDITIONAL_CONTEXT: str = Field("", description="Text for the model about how to use the tool.")
        DOCKER_SOCKET: str = Field(
            "unix:///var/run/docker.sock", description="Where the engine is controlled: unix://, tcp:// or ssh://."
        )
        DOCKER_IMAGE: str = Field(
            "", description="The image of sessions; empty for the default, `example` for the one for data analysis."
        )
        DOCKER_YAML_OPTIONS: str = Field(YAML_OPTIONS, description="Options of each container, as YAML.")
        NETWORK: str = Field(
            "", description="none, allowlist (see ALLOWED_HOSTS) or full; empty for what DOCKER_YAML_OPTIONS say."
        )
        ALLOWED_HOSTS: str = Field(
            "", description="Hosts that sessions may reach, such as `pypi.org, files.pythonhosted.org`; no others then."
        )
        IDLE_SECONDS: float = Field(3600, description="Seconds without a call, then a session is put away.")
        SESSIONS_PER_USER: int = Field(4, description="The most sessions of one user that run; 0 for no limit.")
        POOL_SIZE: int = Field(0, description="Containers that wait with a booted Python, so that chats start at once.")
        OUTPUT_CHARS: int = Field(20_000, description="Characters of a call's output that the model reads.")
        WORKSPACE_SIZE: str = Field("4g", description="What the files of one chat may take.")
        SHOW_IMAGES_TO_MODEL: bool = Field(True, description="Whether the model sees the plots; it must read images.")
        MOST_IMAGES_FOR_MODEL: int = Field(2, description="The most plots of one call that it sees.")
        LARGEST_IMAGE_FOR_MODEL: int = Field(
            4_000_000, description="Bytes of one of them; larger ones it does not see."
        )
        UPLOAD_FILES: bool = Field(True, description="Whether plots, and files that the code made, reach the user.")
        MOST_UPLOADS: int = Field(10, description="The most of them after one call.")
        LARGEST_UPLOAD: int = Field(100_000_000, description="Bytes of one of them.")
        INJECT_UPLOADED_FILES: bool = Field(True, description="Whether files of the chat lie beside the code.")

    class UserValves(BaseModel):
        """What each user sets."""

        TIMEOUT: float = Field(0, description="Seconds a call may run, up to the administrator's; 0 for those.")
        KEEP_SECONDS: float = Field(
            0, description="Seconds without a call, then your Python is put away; 0 for the administrator's choice."
        )
        SHOW_CODE: bool = Field(True, description="Show code and output while a call runs.")

    def __init__(self) -> None:
        """Nothing is started here: valves are not known yet, and a failure would be a bare 400."""
        self.citation = False
        self.valves = self.Valves()

    def __setattr__(self, name: str, value: Any) -> None:
        """Open WebUI replaces the valves before each request, and then reads the descriptions."""
        super().__setattr__(name, value)
        if name == "valves":
            describe(type(self), value)

    async def run_python_code(
        self,
        code: str,
        __user__: dict | None = None,
        __metadata__: dict | None = None,
        __request__: Any = None,
        __event_emitter__: Any = None,
        __files__: list | None = None,
        __chat_id__: str = "",
        __message_id__: str = "",
    ) -> str | list:
        """Run Python code in this chat's session.

        :param code: The Python code to run.
        """
        call = Call(self.valves, __user__, __metadata__, __request__, __event_emitter__, __chat_id__, __message_id__)
        return await call.guarded(lambda: call.run(code, __files__ or []))

    async def restart_python(
        self,
        __user__: dict | None = None,
        __metadata__: dict | None = None,
        __event_emitter__: Any = None,
        __chat_id__: str = "",
    ) -> str | list:
        """Start this chat's Python anew: variables go, files stay. For when it is in a state that can't be mended."""
        call = Call(self.valves, __user__, __metadata__, None, __event_emitter__, __chat_id__, "")
        return await call.guarded(call.restart)

    async def list_python_files(
        self,
        __user__: dict | None = None,
        __metadata__: dict | None = None,
        __event_emitter__: Any = None,
        __chat_id__: str = "",
    ) -> str | list:
        """List the files in the working directory of this chat's Python: path and size of each."""
        call = Call(self.valves, __user__, __metadata__, None, __event_emitter__, __chat_id__, "")
        return await call.guarded(call.list_files)


def describe(tools: type, valves: Any) -> None:
    """Put what the model has to know into the docstring, which is what Open WebUI gives it."""
    try:
        from session_manager.chat.packages import known_packages
        from session_manager.chat.valves import settings_from
        from session_manager.errors import SandboxError
        from session_manager.tool_description import describe_tool
    except ImportError:
        return  # the first call says so
    try:
        settings = settings_from(valves.model_dump())
    except SandboxError:
        return  # the first call says so
    text = describe_tool(settings, timeout=settings.limits.timeout, images=valves.SHOW_IMAGES_TO_MODEL)
    if packages := known_packages(settings.image or ""):
        text += f"\n- Packages that can be imported: {', '.join(packages)}."
    text += "\n- Files that you write there reach the user by themselves; name them, and give no links."
    context = valves.ADDITIONAL_CONTEXT.replace(":param", ": param").replace(":return", ": return")
    tools.run_python_code.__doc__ = DESCRIPTION.format(description=text, context=context)


class Call:
    """One call of the model's: who asked, where it is shown, and the session that it runs in."""

    def __init__(
        self, valves: Any, user: dict | None, metadata: dict | None, request: Any, emit: Any, chat: str, message: str
    ) -> None:
        # the tool's instance is shared, and its valves may be others after the first await
        self.valves = valves
        self.user = user or {}
        self.metadata = metadata or {}
        self.request = request
        self.emitter = emit
        self.chat = chat or self.metadata.get("chat_id") or ""
        self.message = message or self.metadata.get("message_id") or ""
        self.wishes = self.user.get("valves")
        self.began = time.monotonic()

    @property
    def place(self) -> Any:
        """Where the package's functions for files find user, chat and message."""
        from session_manager.chat.open_webui_files import Place

        return Place(self.user, self.chat, self.message, self.request, self.metadata)

    # -- events -------------------------------------------------------------------------------------------------

    async def emit(self, kind: str, data: dict) -> None:
        if self.emitter is not None:
            await self.emitter({"type": kind, "data": data})

    async def status(self, text: str, *, done: bool = False) -> None:
        await self.emit("status", {"description": text, "done": done})

    async def guarded(self, work: Any) -> str | list:
        """Do it; whatever the package raises becomes a sentence for model and user."""
        try:
            # the package loads what it needs when that is wanted; what is missing is to be named now
            import session_manager.kernel_client  # noqa: F401
            from session_manager import SandboxError, SessionManager  # noqa: F401
        except ImportError as error:
            text = MISSING.format(name=error.name)
            await self.status(text, done=True)
            return f"Error: {text}"
        try:
            return await work()
        except SandboxError as error:
            await self.status(str(error)[:500], done=True)
            return f"Error: {error}"
        except BaseException as error:
            stopped = isinstance(error, asyncio.CancelledError)
            await self.status("Stopped" if stopped else f"Failed: {type(error).__name__}: {error}"[:500], done=True)
            raise

    # -- what the model calls -----------------------------------------------------------------------------------

    async def run(self, code: str, files: list) -> str | list:
        from session_manager.chat.chip import LiveChip
        from session_manager.chat.managers import chat_manager
        from session_manager.chat.result import text_for_chat
        from session_manager.model_code import plain_code

        settings = self.settings()
        async with chat_manager(settings) as chats:
            await self.status("Starting Python")
            session = await self.session(chats)
            if session is None:
                text = f"Python is still being made ready ({chats.step or 'starting'}). Try again in a minute."
                await self.status(text, done=True)
                return text
            try:
                notes = await self.prepare(session, files)
                await self.status("Running")
                source = plain_code(code)
                chip = LiveChip(self.chip(source), source)
                async with chip:
                    limit = settings.limits.timeout
                    run = await session.execute(
                        source, timeout=limit, on_output=chip.on_output, asked_by=str(self.user.get("id", ""))
                    )
                    shown = await self.hand_over(session, run, notes)
                    await chip.end(run.message, shown)
            finally:
                if not session.kept:
                    await session.stop(purge=True)
                elif self.place.temporary:
                    close_later(session)
            keep(asyncio.create_task(self.learn(settings)))
        await self.status(f"Done in {time.monotonic() - self.began:.1f} s", done=True)
        text = "\n".join([text_for_chat(run), *notes])
        pictures = self.pictures(run)
        return [text, *pictures] if pictures else text

    async def prepare(self, session: Any, files: list) -> list[str]:
        """Files beside the code, and how long the session is kept after it; what could not be had."""
        from session_manager.chat.open_webui_files import put_attached

        wanted = float(getattr(self.wishes, "KEEP_SECONDS", 0) or 0)
        if wanted > 0:
            await session.keep_for(min(wanted, self.valves.IDLE_SECONDS))
        if self.request is None or not self.valves.INJECT_UPLOADED_FILES:
            return []  # without a request there is no Open WebUI to ask for files
        return await put_attached(self.place, session, files)

    async def learn(self, settings: Any) -> None:
        """Learn which packages there are, for the next request's description."""
        from session_manager.chat.managers import chat_manager
        from session_manager.chat.packages import learn_packages

        async with chat_manager(settings) as chats:  # so that nobody lets go of it meanwhile
            await learn_packages(chats.manager, settings.image or "")

    async def restart(self) -> str:
        from session_manager.chat.managers import chat_manager

        async with chat_manager(self.settings()) as chats:
            session = await chats.manager.find(self.key(), owner=self.owner())
            if session is None:
                return "No Python runs in this chat yet."
            await session.restart()
        await self.status("Python was started anew", done=True)
        return "Python was started anew: variables are gone, files are kept."

    async def list_files(self) -> str:
        from session_manager.chat.managers import chat_manager
        from session_manager.errors import FileError, SandboxError
        from session_manager.execution import readable_size

        async with chat_manager(self.settings()) as chats:
            try:
                async with chats.manager.files(self.key(), owner=self.owner()) as files:
                    found = [entry for entry in await files.list() if entry.kind == "file"]
            except FileError:
                raise
            except SandboxError:
                return "There are no files yet."
        lines = [f"{entry.path} ({readable_size(entry.size)})" for entry in found[:200]]
        more = [f"and {len(found) - 200} more"] if len(found) > 200 else []
        return "\n".join([*lines, *more]) or "There are no files yet."

    # -- the session --------------------------------------------------------------------------------------------

    def settings(self) -> Any:
        from session_manager.chat.valves import settings_from

        wanted = self.valves.model_dump()
        own = float(getattr(self.wishes, "TIMEOUT", 0) or 0)
        if own > 0:
            wanted["CODE_INTERPRETER_TIMEOUT"] = min(own, wanted["CODE_INTERPRETER_TIMEOUT"])
        return settings_from(wanted)

    def key(self) -> str:
        return f"chat {self.chat}"

    def owner(self) -> str:
        return f"openwebui {self.user.get('id', '')}"

    async def session(self, chats: Any) -> Any:
        """The chat's session; None where it takes long to start, which goes on meanwhile."""
        manager = chats.manager
        opening = (
            manager.session(self.key(), owner=self.owner()) if self.chat else manager.throw_away(owner=self.owner())
        )
        task = keep(asyncio.create_task(opening))
        deadline = time.monotonic() + PATIENCE
        told = ""
        try:
            while not task.done() and time.monotonic() < deadline:
                await asyncio.wait([task], timeout=2)
                if chats.step != told and not task.done():
                    told = chats.step
                    await self.status(told[:200])
            return await task if task.done() else None
        finally:
            if not (self.chat or task.done()):
                task.add_done_callback(throw_away)  # nobody else will ever ask for it

    # -- what is shown ------------------------------------------------------------------------------------------

    def chip(self, code: str) -> Any:
        """Sends the states of one block of code and output, which the page updates in its place."""
        block, wanted = str(uuid.uuid4()), getattr(self.wishes, "SHOW_CODE", True)

        async def show(result: Any) -> None:
            if wanted:
                data = {"type": "code_execution", "id": block, "name": "Python", "code": code, "language": "python"}
                await self.emit("source", {**data, "result": dict(result)} if result else data)

        return show

    def pictures(self, run: Any) -> list[str]:
        """What the model sees of the plots."""
        from session_manager.ask.pictures import data_urls

        legacy = (self.metadata.get("params") or {}).get("function_calling") == "legacy"
        if legacy or not self.valves.SHOW_IMAGES_TO_MODEL:
            return []  # legacy: Open WebUI would show each plot to the user once more, and to the model not at all
        small = [url for url in data_urls(run) if len(url) <= self.valves.LARGEST_IMAGE_FOR_MODEL * 4 / 3]
        return small[: max(0, self.valves.MOST_IMAGES_FOR_MODEL)]

    async def hand_over(self, session: Any, run: Any, notes: list[str]) -> list[dict]:
        """Plots into the message, files for download, HTML as embeds; name and address of each file."""
        from session_manager.chat import open_webui_files as files

        await self.embed(run)
        if not (self.valves.UPLOAD_FILES and self.place.shows_files):
            return []
        limits = files.UploadLimits(self.valves.MOST_UPLOADS, self.valves.LARGEST_UPLOAD)
        stored, said = await files.hand_over(self.place, session, run, limits)
        notes += said
        if stored:
            await self.emit("chat:message:files", {"files": await files.link(self.place, stored)})
        return [{"name": one["name"], "url": files.address_of(one["id"])} for one in stored]

    async def embed(self, run: Any) -> None:
        """HTML that says more than its text, such as a chart or a styled table; all of a call in one event."""
        found = []
        for output in run.outputs:
            data = getattr(output, "data", {})
            html, plain = data.get("text/html"), data.get("text/plain", "")
            if not isinstance(html, str) or len(html) > EMBED_CHARS:
                continue
            if "<script" in html or "<style" in html or not plain:
                found.append(f"<!DOCTYPE html><meta charset=utf-8><body>{html}{SCRIPT}</body>")
        if found:
            await self.emit("embeds", {"embeds": found[:MOST_EMBEDS]})


running: set = set()
closing: dict[str, asyncio.TimerHandle] = {}


def keep(task: asyncio.Task) -> asyncio.Task:
    """Keep a task that nobody waits for until it has ended."""
    running.add(task)

    def ended(task: asyncio.Task) -> None:
        running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.info("a session was not started: %s", task.exception())

    task.add_done_callback(ended)
    return task


def throw_away(task: asyncio.Task) -> None:
    """Remove a session that nobody waited for."""
    if not task.cancelled() and task.exception() is None:
        keep(asyncio.ensure_future(task.result().stop(purge=True)))


def close_later(session: Any) -> None:
    """End the session of a temporary chat once nothing has run in it for a while."""
    name = session.container_name
    if name in closing:
        closing.pop(name).cancel()

    def close() -> None:
        closing.pop(name, None)
        keep(asyncio.get_running_loop().create_task(session.stop(purge=True)))

    closing[name] = asyncio.get_running_loop().call_later(TEMPORARY_SECONDS, close)
