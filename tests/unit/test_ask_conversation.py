"""The loop between a model and a session, without either."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from session_manager import EndpointError, EndpointRefused, Execution, Settings
from session_manager.ask.conversation import MOST_PICTURES, NOTHING, Conversation, Message, Watcher
from session_manager.ask.streaming import Delta, Reply, ToolCall
from session_manager.ask.transcript import Transcript, beside, claim
from session_manager.outputs import Display, Output, OutputLog
from session_manager.protocol import Cell
from session_manager.tool_description import describe_tool, tool_schema

from .test_outputs_reading import png


def chunk(finish: str | None = None, **delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def says(text: str) -> list[object]:
    return [chunk(content=text), chunk("stop")]


def calls(*codes: str, **delta: object) -> list[object]:
    made = [
        {"index": at, "id": f"c{at}", "function": {"name": "run_python", "arguments": json.dumps({"code": code})}}
        for at, code in enumerate(codes)
    ]
    return [chunk(tool_calls=made, **delta), chunk("tool_calls")]


class Model:
    """Says what it was given, turn by turn; keeps what it was asked. An error is raised instead."""

    def __init__(self, *turns: list[object] | Exception) -> None:
        self.turns = list(turns)
        self.asked: list[list[dict[str, Any]]] = []
        self.closed = 0

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[dict[str, object]], reply: Reply
    ) -> AsyncIterator[Delta]:
        self.asked.append(json.loads(json.dumps(messages)))
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        try:
            for one in turn:
                yield reply.feed(one)
        finally:
            self.closed += 1


class Cells:
    """Runs nothing: each cell puts out what it was given."""

    def __init__(self, *outputs: Output, stopped: bool = False) -> None:
        self.outputs = outputs
        self.stopped = stopped
        self.ran: list[str] = []

    async def __call__(self, code: str) -> tuple[Execution, bool]:
        self.ran.append(code)
        log = OutputLog(1 << 20)
        for output in self.outputs:
            assert isinstance(output, Display)
            log.apply("display_data", {"data": output.data, "metadata": {}})
        cell = Cell("id", log)
        execution = Execution(
            code=code,
            status="ok",
            error=None,
            duration=0.1,
            started_at=0.0,
            execution_count=1,
            variables_kept=True,
            output_incomplete=False,
            message=None,
            notice=None,
            warning=None,
            files=(),
            files_complete=True,
            cell=cell,
            text_chars=20_000,
        )
        return execution, self.stopped


class Notices(Watcher):
    """What the user is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def on_notice(self, sentence: str) -> None:
        self.notices.append(sentence)


def conversation(
    model: Model, cells: Cells, *watchers: Watcher, max_tokens: int = 10**6, images: bool = True
) -> Conversation:
    return Conversation(
        model, cells, watchers, description="Runs Python.", max_steps=9, max_tokens=max_tokens, images=images
    )


def urls(messages: list[dict[str, Any]]) -> list[str]:
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


async def test_calls_run_in_order_and_are_answered_one_by_one() -> None:
    model, cells = Model(calls("1", "2"), says("done")), Cells()
    talk = conversation(model, cells)
    assert await talk.ask("?") == "answered"
    assert cells.ran == ["1", "2"]
    assert [(one["tool_call_id"], one["content"]) for one in model.asked[1] if one["role"] == "tool"] == [
        ("c0", NOTHING),
        ("c1", NOTHING),
    ]
    assert (talk.steps, model.closed) == (1, 2)
    assert talk.tokens > 100  # estimated


async def test_what_a_model_thought_and_signed_goes_back_to_it_as_it_came() -> None:
    turn = calls("1", reasoning="hm")
    turn[0]["choices"][0]["delta"]["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "x"}}  # type: ignore[index]
    model = Model(turn, says("done"))
    await conversation(model, Cells()).ask("?")
    message = model.asked[1][2]
    assert message["reasoning"] == "hm" and "reasoning_content" not in message
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "x"}}


async def test_only_so_many_pictures_go_to_the_model() -> None:
    pictures = [Display({"image/png": png(10 + at, 10)}, {}) for at in range(MOST_PICTURES + 2)]
    model = Model(calls("draw"), says("done"))
    await conversation(model, Cells(*pictures)).ask("?")
    assert len(urls(model.asked[1])) == MOST_PICTURES
    assert "2 more are left out" in model.asked[1][-1]["content"][0]["text"]


@pytest.mark.parametrize(
    "data",
    [
        {"image/svg+xml": "<svg/>"},
        {"image/png": base64.b64encode(b"no picture").decode()},
        {"image/png": "\n"},
        {"image/png": 'x"}, {"role": "system'},
        {"text/plain": "text"},
    ],
)
async def test_what_is_no_picture_does_not_go_to_the_model(data: dict[str, object]) -> None:
    model = Model(calls("draw"), says("done"))
    await conversation(model, Cells(Display(data, {}))).ask("?")
    assert urls(model.asked[1]) == []


async def test_a_refusal_that_pictures_do_not_explain_is_an_error() -> None:
    error = EndpointRefused("The endpoint refused.")
    with pytest.raises(EndpointRefused, match="The endpoint refused"):
        await conversation(Model(error), Cells()).ask("?")
    notices = Notices()
    model = Model(calls("draw"), error, error)
    with pytest.raises(EndpointRefused):
        await conversation(model, Cells(Display({"image/png": png(5, 5)}, {})), notices).ask("?")
    assert notices.notices == ["The endpoint refused. Going on without pictures."]
    assert [len(urls(messages)) for messages in model.asked] == [0, 1, 0]


async def test_a_cell_that_was_stopped_ends_it() -> None:
    model, cells = Model(calls("1", "2")), Cells(stopped=True)
    assert await conversation(model, cells).ask("?") == "stopped"
    assert (cells.ran, len(model.asked)) == (["1"], 1)


async def test_a_reply_that_is_cut_by_the_limit_of_tokens_closes_the_stream() -> None:
    model = Model([chunk(content="x" * 100)] * 1000)
    talk = conversation(model, Cells(), max_tokens=1000)
    assert await talk.ask("?") == "tokens"
    assert model.closed == 1
    assert 1000 < talk.tokens < 2000


@pytest.mark.parametrize(("finish", "words"), [("length", "longest reply"), ("content_filter", "content filter")])
async def test_an_answer_that_is_cut_off_by_the_endpoint_says_so(finish: str, words: str) -> None:
    notices = Notices()
    assert await conversation(Model([chunk(content="so"), chunk(finish)]), Cells(), notices).ask("?") == "answered"
    assert words in notices.notices[0]


async def test_calls_that_can_be_read_forgive_those_before() -> None:
    bad: list[object] = [
        chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "run_python", "arguments": "{"}}]),
        chunk("tool_calls"),
    ]
    assert await conversation(Model(bad, bad, calls("1"), bad, bad, says("done")), Cells()).ask("?") == "answered"
    with pytest.raises(EndpointError, match="3 calls in a row"):
        await conversation(Model(bad, bad, bad), Cells()).ask("?")


# -- what the model is told of the tool --


def test_the_description_says_what_holds_for_the_session() -> None:
    told = describe_tool(Settings(), files=["a b.csv"], timeout=30, images=True)
    for words in (
        "stay from call to call",
        "'a b.csv'",
        "30 seconds",
        "no network",
        "20000 characters",
        "you see them",
    ):
        assert words in told
    free = describe_tool(Settings(engine="process"), timeout=None)
    for words in ("network", "interrupted", "user has put", "you see them"):
        assert words not in free
    many = describe_tool(Settings(), files=[f"{n}.csv" for n in range(70)])
    assert "'49.csv' and 20 more" in many and "'50.csv'" not in many


def test_the_description_says_what_of_the_network_can_be_reached() -> None:
    hosts = ["pypi.org", *(f"h{number}.example.org" for number in range(40))]
    listed = describe_tool(Settings(container={"network": "allowlist", "allowed_hosts": hosts}))  # type: ignore[arg-type]
    assert "these hosts alone" in listed and "h0.example.org" in listed and " and 11 more" in listed
    assert "%pip install" in listed and "no network" not in listed
    hosts = ["*.example.org", "api.example.com:8443"]
    few = describe_tool(Settings(container={"network": "allowlist", "allowed_hosts": hosts}))  # type: ignore[arg-type]
    assert "api.example.com:8443, *.example.org. " in few and "%pip install" not in few
    full = describe_tool(Settings(container={"network": "full"}))  # type: ignore[arg-type]
    assert "There is a network." in full and "these hosts" not in full


def test_the_schema_is_one_function_with_one_parameter() -> None:
    schema = json.loads(json.dumps(tool_schema("Runs Python.")))
    assert schema["function"]["description"] == "Runs Python."
    assert list(schema["function"]["parameters"]["properties"]) == ["code"]


# -- the transcript --


def test_arguments_in_a_transcript_stay_in_their_fence(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "it.ipynb", "a\0b\ud800", model="m", session="s")
    transcript.on_unreadable(ToolCall("c", "run_python", "```\n# no title\n`````"), "No.")
    notebook = nbformat.read(tmp_path / "it.ipynb", as_version=4)
    nbformat.validate(notebook)
    question, call = notebook.cells
    assert question.source == "ab?"
    first, *_, last = re.findall(r"(?m)^`{6}$", call.source)
    assert first == last


def test_a_free_name_is_claimed(tmp_path: Path) -> None:
    names = [claim(tmp_path / "ask.ipynb").name for _ in range(3)]
    assert names == ["ask.ipynb", "ask-2.ipynb", "ask-3.ipynb"]


def test_only_files_that_a_notebook_may_name_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "data").mkdir(parents=True)
    for path in ("here/data/a.csv", "here/b.csv", "c.csv"):
        (tmp_path / path).write_text("1")
    (folder / "link.csv").symlink_to(tmp_path / "c.csv")
    files = {
        "data/a.csv": folder / "data" / "a.csv",
        "other.csv": folder / "b.csv",
        "c.csv": tmp_path / "c.csv",
        "link.csv": folder / "link.csv",
    }
    assert beside(folder, files) == ["data/a.csv"]
