"""A real Open WebUI, started for a test, with a scripted model behind it; and what its page asks of its API."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.ask_endpoint import MODEL, Turn, call_piece, chunk, says

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
HOME = Path(os.environ.get("TEST_OPENWEBUI", CACHE / "docker-interpreter" / "openwebui-0.12.4"))
"""The environment that `make openwebui` makes."""
SERVE = """
import functools
import uvicorn
uvicorn.run = functools.partial(uvicorn.run, timeout_worker_healthcheck=300)
from open_webui import app
app()
"""
"""The command ``open-webui``; but a worker that the machine holds up for 5 s is not ended, with its chats."""
START_SECONDS = 420
ANSWER_SECONDS = 180
TOOL = "python_sessions"
PASSWORD = "a password"  # noqa: S105 - of users that live as long as the test
ORDER = "call "
"""How a message begins whose rest is a tool's name, and behind a colon or in the lines below the code for it."""


def model_that_obeys(request: dict[str, Any]) -> Turn:
    """Calls the tool that the user's message names, and then says what that returned."""
    messages = request["messages"]
    text = text_of(messages[-1])
    if text_of(messages[0]).startswith("Available Tools:"):  # how models are asked that know nothing of tools
        name, arguments = order_in(text.rpartition("Query: ")[2])
        return whole(json.dumps({"tool_calls": [{"name": name, "parameters": arguments}] if name else []}))
    if messages[-1]["role"] == "user" and ORDER in text and request.get("tools"):
        name, arguments = order_in(text)
        call = call_piece(0, id=f"call_{uuid.uuid4().hex[:8]}", name=name, arguments=json.dumps(arguments))
        return Turn([call, chunk({}, "tool_calls")])
    # pictures come in a message of their own, behind what the tool has returned
    returned = [text_of(message) for message in messages if message["role"] == "tool"]
    said = returned[-1] if returned else text
    return says(said) if request.get("stream") else whole(said)


def order_in(text: str) -> tuple[str, dict[str, str]]:
    """The tool that a message names, and what it is to be given; "" where there is none."""
    found = re.match(r"(\w{1,60})(?:: |\n)?(.*)", text.partition(ORDER)[2], re.DOTALL)
    return (found[1], {"code": found[2]} if found[2] else {}) if found else ("", {})


def whole(text: str) -> Turn:
    """An answer that is no stream."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Turn(body={"id": "c-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]})


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")
    return str(content)


def settings_of(data: Path, model_url: str) -> dict[str, str]:
    """The environment of a server that keeps to itself: its folder, and the address of its model."""
    return {
        "DATA_DIR": str(data),
        "WEBUI_SECRET_KEY": "of a test",
        "OFFLINE_MODE": "True",
        "HF_HUB_OFFLINE": "1",
        "ENABLE_OLLAMA_API": "False",
        "OPENAI_API_BASE_URL": model_url,
        "OPENAI_API_KEY": "x",
        "RAG_EMBEDDING_ENGINE": "openai",
        "RAG_OPENAI_API_BASE_URL": model_url,
        "RAG_OPENAI_API_KEY": "x",
        **{
            f"ENABLE_{name}": "False"
            for name in ("VERSION_UPDATE_CHECK", "TITLE_GENERATION", "TAGS_GENERATION", "FOLLOW_UP_GENERATION")
        },
        "ENABLE_AUTOCOMPLETE_GENERATION": "False",
    }


@dataclass
class OpenWebUI:
    """One server. ``data`` is its folder, which outlives a restart."""

    data: Path
    model_url: str
    environment: dict[str, str]
    workers: int = 1
    more: dict[str, str] = field(default_factory=dict)
    """Settings of its own."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = HOME / "bin" / "python"
        assert program.exists(), f"{program} is missing: `make openwebui` installs Open WebUI there"
        if not self.port:
            with socket.socket() as found:
                found.bind(("127.0.0.1", 0))
                self.port = found.getsockname()[1]
        settings = {**settings_of(self.data, self.model_url), "UVICORN_WORKERS": str(self.workers), **self.more}
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-c", SERVE, "serve", "--host", "127.0.0.1", "--port", str(self.port)],
                env={**self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_healthy():
            assert self.process.poll() is None and time.monotonic() < deadline, self.last_words()
            time.sleep(0.5)

    def is_healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=10).ok
        except requests.RequestException:
            return False

    def last_words(self) -> str:
        return (self.data / "server.log").read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(60)

    def sign_up(self, name: str) -> User:
        """A new user; the first is the administrator."""
        fields = {"name": name, "email": f"{name}@example.org", "password": PASSWORD}
        return User(self, requests.post(f"{self.url}/api/v1/auths/signup", json=fields, timeout=60).json())


@dataclass
class User:
    """Somebody who is signed in."""

    server: OpenWebUI
    account: dict[str, Any]

    def ask(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """Ask the API; what it answers."""
        answer = requests.request(
            method,
            f"{self.server.url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.account['token']}"},
            timeout=ANSWER_SECONDS,
            **options,
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.content

    def install(self, file: Path, **valves: str) -> None:
        """Make the tool, for everybody, as an administrator does it from the command line."""
        words = [word for name, value in valves.items() for word in ("--valve", f"{name}={value}")]
        done = subprocess.run(
            [sys.executable, "-m", "session_manager.cli", "tool", "install", self.server.url, "--file", file]
            + ["--public", *words],
            env={**os.environ, "OPENWEBUI_TOKEN": self.account["token"]},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def set(self, **valves: object) -> None:
        """Change valves of the tool, and leave the others."""
        now = self.ask("GET", f"/api/v1/tools/id/{TOOL}/valves") or {}
        self.ask("POST", f"/api/v1/tools/id/{TOOL}/valves/update", {**now, **valves})

    def share(self) -> None:
        """Let everybody use the model."""
        grants = [{"principal_type": "user", "principal_id": "*", "permission": "read"}]
        model = {"id": MODEL, "name": MODEL, "base_model_id": None, "meta": {}, "params": {}, "access_grants": grants}
        self.ask("POST", "/api/v1/models/create", model)

    def save(self, content: str) -> None:
        """Change the tool's text."""
        form = {"id": TOOL, "name": "Python", "content": content, "meta": {"description": "Python"}}
        self.ask("POST", f"/api/v1/tools/id/{TOOL}/update", form)

    def sign_in(self) -> User:
        """The same user, at a server that was started anew."""
        fields = {"email": self.account["email"], "password": PASSWORD}
        return User(self.server, self.ask("POST", "/api/v1/auths/signin", fields))

    def wish(self, **valves: object) -> None:
        """Set valves that are the user's own."""
        self.ask("POST", f"/api/v1/tools/id/{TOOL}/valves/user/update", valves)

    def add(self, name: str) -> User:
        """Another user, made by this administrator."""
        fields = {"name": name, "email": f"{name}@example.org", "password": PASSWORD, "role": "user"}
        return User(self.server, self.ask("POST", "/api/v1/auths/add", fields))

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """A file as it is attached to a message."""
        found = self.ask("POST", "/api/v1/files/?process=false", files={"file": (name, content)})
        return {
            "type": "file",
            "id": found["id"],
            "url": found["id"],
            "name": name,
            "size": len(content),
            "file": found,
        }

    def chat(self) -> Chat:
        """A new chat."""
        return Chat(self)


@dataclass
class Chat:
    """One chat of a user's, spoken to as the page does it."""

    user: User
    id: str | None = None
    last: str | None = None
    task: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def send(self, text: str, files: list[dict[str, Any]] | None = None, calling: str = "native") -> str:
        """Send a message; the id of the answer that comes. ``calling``: how the model is to call tools."""
        question, answer = str(uuid.uuid4()), str(uuid.uuid4())
        message = {"id": question, "parentId": self.last, "childrenIds": [], "role": "user", "content": text}
        self.history.append({"role": "user", "content": text})
        if files:
            message["files"] = files
        body = {
            "model": MODEL,
            "stream": True,
            "session_id": "of-a-test",
            "id": answer,
            "parent_id": self.last,
            "messages": self.history,
            "params": {"function_calling": calling},
            "tool_ids": [TOOL],
            "user_message": message,
            **({"chat_id": self.id} if self.id else {}),
            **({"files": files} if files else {}),
        }
        started = self.user.ask("POST", "/api/chat/completions", body)
        self.id = started.get("chat_id", self.id)
        self.task = (started.get("task_ids") or [started.get("task_id")])[0]
        self.last = answer
        return answer

    def answer(self, message: str | None = None) -> dict[str, Any]:
        """The answer, once it is complete."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            found = self.message(message)
            if found.get("done"):
                self.history.append({"role": "assistant", "content": found.get("content", "")})
                return found
            assert time.monotonic() < deadline, f"no answer: {json.dumps(found)[:2000]}"
            time.sleep(0.2)

    def message(self, message: str | None = None) -> dict[str, Any]:
        """A message as it is kept now."""
        chat = self.user.ask("GET", f"/api/v1/chats/{self.id}")["chat"]
        found: dict[str, Any] = chat["history"]["messages"].get(message or self.last, {})
        return found

    def run(self, code: str, files: list[dict[str, Any]] | None = None, calling: str = "native") -> dict[str, Any]:
        """Have the model run code; its answer."""
        self.send(f"{ORDER}run_python_code\n{code}", files, calling)
        return self.answer()

    def stop(self) -> None:
        """Press the stop button."""
        self.user.ask("POST", f"/api/tasks/chat/{self.id}/stop")


@contextmanager
def valves(admin: User, **changes: object) -> Iterator[None]:
    """The tool with other valves for a while."""
    before = admin.ask("GET", f"/api/v1/tools/id/{TOOL}/valves")
    admin.set(**changes)
    try:
        yield
    finally:
        admin.ask("POST", f"/api/v1/tools/id/{TOOL}/valves/update", before)


@contextmanager
def saved(admin: User, text: str, old: str, new: str) -> Iterator[None]:
    """The tool with another text for a while."""
    assert text.count(old) == 1
    admin.save(text.replace(old, new))
    try:
        yield
    finally:
        admin.save(text)
