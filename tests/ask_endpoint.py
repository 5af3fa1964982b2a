"""A model that says what a test has written down for it: an OpenAI-compatible endpoint over HTTP, streaming."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-the-right-one"
MODEL = "scripted"
USAGE = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
END_SECONDS = 60


@dataclass
class Turn:
    """What the endpoint does with one request."""

    chunks: Sequence[object] = ()
    """Each is sent as one event; text as it is, all else as JSON."""
    done: bool = True
    """Ends the stream as it should be; else it just stops."""
    hold: bool = False
    """Goes on sending nothing, without an end, until the server ends or the client goes."""
    status: int = 200
    body: object = None
    """Of an answer that is no stream."""
    headers: Mapping[str, str] = field(default_factory=dict)


def chunk(delta: Mapping[str, object], finish: str | None = None) -> dict[str, object]:
    """One chunk of a streamed completion."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}


def usage() -> dict[str, object]:
    """The last chunk, which tells how many tokens there were."""
    return {**chunk({}), "choices": [], "usage": USAGE}


def says(text: str, *, reasoning: str = "", finish: str = "stop", counted: bool = True) -> Turn:
    """An answer, word by word."""
    words = [chunk({"content": word}) for word in text.split(" ") for word in (word, " ")][:-1] if text else []
    thought = [chunk({"reasoning_content": reasoning})] if reasoning else []
    return Turn([chunk({"role": "assistant"}), *thought, *words, chunk({}, finish), *([usage()] if counted else [])])


def call_piece(index: int | None = None, *, id: str | None = None, name: str | None = None, arguments: object = None):  # type: ignore[no-untyped-def]
    """One piece of a tool call; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    piece = {"index": index, "id": id, "type": "function", "function": function}
    return chunk({"tool_calls": [{key: value for key, value in piece.items() if value is not None}]})


def calls(*codes: str, text: str = "", reasoning: str = "", counted: bool = True) -> Turn:
    """Calls of the tool, each in pieces of seven characters, those of several calls in turn."""
    begun: list[object] = [chunk({"role": "assistant", "content": text})]
    if reasoning:
        begun.append(chunk({"reasoning_content": reasoning}))
    pieces: list[list[object]] = []
    for index, code in enumerate(codes):
        arguments = json.dumps({"code": code})
        rest = [arguments[start : start + 7] for start in range(0, len(arguments), 7)]
        pieces.append(
            [
                call_piece(index, id=f"call_{index}_{len(code)}", name="run_python", arguments=""),
                *(call_piece(index, arguments=part) for part in rest),
            ]
        )
    longest = max(map(len, pieces))
    mixed = [some[at] for at in range(longest) for some in pieces if at < len(some)]
    return Turn([*begun, *mixed, chunk({}, "tool_calls"), *([usage()] if counted else [])])


def calls_with(arguments: str, name: str = "run_python") -> Turn:
    """A call with exactly these arguments."""
    return Turn([call_piece(0, id="call_x", name=name, arguments=arguments), chunk({}, "tool_calls"), usage()])


def refuses(status: int, message: str, *, code: str | None = None) -> Turn:
    """An error, as OpenAI's look; never tried again."""
    body = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
    return Turn(status=status, body=body, headers={"x-should-retry": "false"})


Script = Callable[[dict[str, Any]], Turn]


@dataclass
class ScriptedEndpoint:
    """The server, what it does next, and what it was asked."""

    script: Script
    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    """Set once a turn that holds has sent what it has."""
    ending: threading.Event = field(default_factory=threading.Event)

    def messages(self, request: int, role: str) -> list[dict[str, Any]]:
        """The messages of one role in a request."""
        return [message for message in self.requests[request]["messages"] if message["role"] == role]


def in_turn(*turns: Turn) -> Script:
    """One after another; the last again and again."""
    left = list(turns)

    def next_turn(request: dict[str, Any]) -> Turn:
        return left.pop(0) if len(left) > 1 else left[0]

    return next_turn


@contextmanager
def serve(script: Script, host: str = "127.0.0.1") -> Iterator[ScriptedEndpoint]:
    """Run the endpoint on this machine; ``host``: the address that it listens on."""
    endpoint = ScriptedEndpoint(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: pytest shows what a test needs."""

        def do_GET(self) -> None:
            """The list of models, which has one."""
            model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "a test"}
            self.send_whole(Turn(body={"object": "list", "data": [model]}))

        def do_POST(self) -> None:
            """One request for a reply."""
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            endpoint.keys.append(key)
            if self.path != "/v1/chat/completions":
                self.send_whole(Turn(status=404, body={"detail": "Not Found"}))
                return
            endpoint.requests.append(request)
            turn = endpoint.script(request)
            if turn.status != 200 or turn.body is not None:
                self.send_whole(turn)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for one in turn.chunks:
                self.send_piece(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n")
            if turn.hold:
                endpoint.silent.set()
                endpoint.ending.wait(END_SECONDS)
            if turn.done and not turn.hold:
                self.send_piece("data: [DONE]\n\n")
                self.send_piece("")
            else:
                self.close_connection = True

        def send_piece(self, text: str) -> None:
            """One chunk of a chunked body; the empty one ends it."""
            content = text.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
            self.wfile.flush()

        def send_whole(self, turn: Turn) -> None:
            """An answer that is no stream."""
            content = turn.body.encode() if isinstance(turn.body, str) else json.dumps(turn.body).encode()
            self.send_response(turn.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in turn.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that goes away in the middle is what some tests are about."""

    with Server((host, 0), Handler) as server:
        endpoint.base_url = f"http://{host}:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.ending.set()
            server.shutdown()
            thread.join()
