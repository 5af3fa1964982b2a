"""``ask`` where the endpoint fails, or the model makes calls that can't be run: clear errors, and all is kept."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ..ask_endpoint import (
    KEY,
    Turn,
    call_piece,
    calls,
    calls_with,
    chunk,
    in_turn,
    refuses,
    says,
    usage,
)
from .conftest import ROOT, Ask, CommandLine, Serve
from .test_ask import kept_session, read, spoken

ONLY_MODEL = {"OPENAI_API_KEY": KEY}


def last_line(run: subprocess.CompletedProcess[str]) -> str:
    return run.stderr.splitlines()[-1]


# -- what goes wrong at the endpoint --


def dropped(*deltas: dict[str, object]) -> Turn:
    return Turn([chunk(delta) for delta in deltas], done=False)


@pytest.mark.parametrize(
    ("turn", "sentences"),
    [
        (refuses(401, "Incorrect API key"), ["does not accept the key: Incorrect API key. Set OPENAI_API_KEY"]),
        (
            refuses(404, "The model `scripted` does not exist", code="model_not_found"),
            ["has no model 'scripted': The model `scripted` does not exist. Check --model"],
        ),
        (refuses(429, "Rate limit reached"), ["takes no more requests for now: Rate limit reached. Try again later"]),
        (refuses(500, "Out of order"), ["failed (status 500: Out of order)"]),
        (
            refuses(400, "This model's maximum context length is 8192 tokens", code="context_length_exceeded"),
            ["has become longer than the model can read", "8192"],
        ),
        (
            refuses(400, "scripted does not support tools"),
            ["refused the request (status 400: scripted does not support tools). Choose a model that can call tools."],
        ),
        (dropped({"content": "The answer"}), ["broke off in the middle of its reply. Ask again."]),
        (
            Turn([chunk({"content": "The answer is 4"})]),
            ["broke off in the middle of its reply. Ask again."],
        ),
        (dropped({"tool_calls": [{"index": 0, "function": {"name": "run_python", "arguments": '{"co'}}]}), ["off in"]),
        (Turn([{"error": {"message": "the engine is on fire"}}]), ["broke its reply off", "the engine is on fire"]),
        (Turn(["<html>"]), ["sent something that is no chat completion. Check --base-url"]),
        (Turn([chunk({}, "stop"), usage()]), ["The model ended without an answer."]),
    ],
    ids=[
        "key",
        "model",
        "rate",
        "server",
        "context",
        "tools",
        "dropped",
        "no finish",
        "dropped call",
        "error in the stream",
        "no JSON",
        "nothing",
    ],
)
def test_an_endpoint_that_fails_is_a_clear_error_and_all_is_kept(
    ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path, turn: Turn, sentences: list[str]
) -> None:
    (tmp_path / "data.csv").write_text("42\n")
    server = endpoint(in_turn(calls("x = open('data.csv').read()", text="I look."), turn))
    run = ask(server, "?", "--file", "data.csv", **ONLY_MODEL)
    assert run.returncode == 125
    assert last_line(run).startswith("error: ")
    for sentence in sentences:
        assert sentence in last_line(run)
    assert "Traceback" not in run.stderr and KEY not in run.stderr
    assert set(server.keys) == {KEY}
    shown = cli("run", "--session", kept_session(run), "-c", "print(x, open('data.csv').read())")
    assert shown.stdout == "42\n 42\n\n"
    parts = spoken(read(tmp_path / "ask.ipynb"))
    assert parts[:3] == [("question", "?"), ("thought", "I look."), ("code", "x = open('data.csv').read()")]
    assert parts[-1] == ("notice", last_line(run).removeprefix("error: "))


def test_what_was_said_before_the_stream_dropped_is_kept(ask: Ask, endpoint: Serve, tmp_path: Path) -> None:
    run = ask(endpoint(in_turn(dropped({"content": "The answer"}, {"content": " is 4"}))))
    assert run.stdout == "The answer is 4\n"
    assert spoken(read(tmp_path / "ask.ipynb"))[1:3] == [
        ("thought", "The answer is 4"),
        ("notice", "*The reply was cut off here.*"),
    ]


def test_an_endpoint_that_wants_a_key_and_gets_none(ask: Ask, endpoint: Serve) -> None:
    server = endpoint(in_turn(refuses(401, "Who are you?")))
    run = ask(server)
    assert "wants a key, and none is set: Who are you?" in last_line(run)
    assert "Set OPENAI_API_KEY" in last_line(run)
    assert server.keys == ["none"]


def test_the_key_of_this_program_comes_first_and_is_in_no_session(ask: Ask, endpoint: Serve) -> None:
    code = "import os\n[name for name in os.environ if 'API_KEY' in name]"
    server = endpoint(in_turn(calls(code), says("none")))
    run = ask(server, "?", OPENAI_API_KEY="another", DOCKER_INTERPRETER_API_KEY=f" {KEY}\n")
    assert (run.returncode, set(server.keys)) == (0, {KEY})
    assert server.messages(1, "tool")[0]["content"] == "[]"


def test_other_commands_do_not_take_the_key_for_a_setting(cli: CommandLine) -> None:
    assert cli("run", "-c", "1", DOCKER_INTERPRETER_API_KEY=KEY).returncode == 0


def test_a_key_that_an_endpoint_repeats_is_not_shown(ask: Ask, endpoint: Serve, tmp_path: Path) -> None:
    run = ask(endpoint(in_turn(refuses(401, f"Bad key {KEY}"))), "?", **ONLY_MODEL)
    assert "Bad key …" in run.stderr and KEY not in run.stderr
    assert KEY not in (tmp_path / "ask.ipynb").read_text()


def test_no_endpoint_there(cli: CommandLine, ask: Ask) -> None:
    run = cli("ask", "--base-url", "http://127.0.0.1:1/v1", "--model", "m", "?")
    assert run.returncode == 125
    assert last_line(run).startswith("error: No endpoint answers at http://127.0.0.1:1/v1 (")
    kept_session(run)


def test_an_address_without_the_endpoint(ask: Ask, endpoint: Serve, cli: CommandLine) -> None:
    server = endpoint(in_turn(says("never")))
    server.base_url = server.base_url.removesuffix("/v1")
    run = ask(server)
    assert "There is no chat completions endpoint at http://127.0.0.1:" in last_line(run)
    assert "often ends in /v1" in last_line(run)


def test_what_can_not_be_an_endpoint_is_refused_before_a_session_is_made(alone: CommandLine) -> None:
    run = alone("ask", "--base-url", "localhost:11434", "--model", "m", "?")
    assert run.returncode == 125
    assert last_line(run).startswith("error: 'localhost:11434' is no address of an endpoint.")
    assert json.loads(alone("sessions", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["?"], "--base-url"),
        (["--base-url", "http://localhost/v1", "?"], "--model"),
        (["--base-url", "http://localhost/v1", "--model", "m", "?", "-o", "it.txt"], "should end in .ipynb"),
        (["--base-url", "http://localhost/v1", "--model", "m", ""], "There is no question"),
        (["--base-url", "http://localhost/v1", "--model", "m", "?", "--max-steps", "0"], "--max-steps"),
    ],
)
def test_wrong_usage(cli: CommandLine, ask: Ask, arguments: list[str], sentence: str) -> None:
    run = cli("ask", *arguments)
    assert run.returncode == 2
    assert sentence in " ".join(run.stderr.replace("│", " ").split())


def test_without_the_client_it_says_what_to_install(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "openai.py").write_text("raise ImportError\n")
    run = cli(
        "ask", "--base-url", "http://localhost/v1", "--model", "m", "?", PYTHONPATH=f"{tmp_path / 'without'}:{ROOT}"
    )
    assert (run.returncode, run.stdout) == (125, "")
    assert last_line(run) == (
        "error: Asking a model needs the openai package. Install it: `pip install 'docker-interpreter[ask]'`."
    )


# -- calls as models make them --


def test_calls_that_can_not_be_read_are_answered_and_can_be_made_again(
    ask: Ask, endpoint: Serve, tmp_path: Path
) -> None:
    server = endpoint(
        in_turn(
            calls_with('{"code": "print(1'),
            calls_with("{}", name="search_web"),
            calls_with('{"code": "print(1)\nprint(2)"}'),
            says("done"),
        )
    )
    run = ask(server)
    assert run.returncode == 0
    assert run.stdout == ">>> print(1)\n... print(2)\n1\n2\ndone\n"
    cut_off, unknown, ran = (message["content"] for message in server.messages(3, "tool"))
    assert cut_off.startswith("The call's arguments end in the middle") and '{"code": "…"}' in cut_off
    assert unknown == "There is no tool 'search_web': the only one is run_python."
    assert ran == "1\n2"
    # endpoints parse what they get back
    for message in server.messages(3, "assistant"):
        assert isinstance(json.loads(message["tool_calls"][0]["function"]["arguments"]), dict)
    assert [role for role, _ in spoken(read(tmp_path / "ask.ipynb"))] == [
        "question",
        "unreadable",
        "unreadable",
        "code",
        "answer",
    ]


def test_a_model_that_can_only_make_calls_that_can_not_be_read(ask: Ask, endpoint: Serve) -> None:
    server = endpoint(in_turn(calls_with('{"code": 1}')))
    run = ask(server)
    assert (run.returncode, len(server.requests)) == (125, 3)
    assert "The model has made 3 calls in a row that can't be run." in last_line(run)
    kept_session(run)


def test_calls_without_ids_or_indexes(ask: Ask, endpoint: Serve) -> None:
    whole = Turn(
        [
            call_piece(name="run_python", arguments={"code": "x = 40"}),
            call_piece(name="run_python", arguments='{"code": "x + 2"}'),
            chunk({}, "stop"),
        ]
    )
    server = endpoint(in_turn(whole, says("42")))
    assert ask(server).stdout == ">>> x = 40\n>>> x + 2\n42\n42\n"
    ids = [message["tool_call_id"] for message in server.messages(1, "tool")]
    assert len(set(ids)) == 2 and all(ids)


def test_halves_of_characters_and_nulls_break_nothing(ask: Ask, endpoint: Serve, tmp_path: Path) -> None:
    half = Turn([chunk({"content": "\ud83d"}), chunk({"content": "\ude00 \ud800\x00"}), chunk({}, "stop")])
    assert ask(endpoint(in_turn(calls("print('\ud800')", text="\udfff"), half))).returncode == 0
    assert spoken(read(tmp_path / "ask.ipynb"))[-1] == ("answer", "😀 �")
