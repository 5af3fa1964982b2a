"""``ask``: a scripted model over real HTTP, streaming, and what the command makes of what it says and does."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, get_args

import nbformat
import pytest
from nbformat import NotebookNode

from session_manager.ask.conversation import Outcome
from session_manager.cli.ask import EXIT_CODES
from session_manager.outputs import strip_escapes

from ..ask_endpoint import (
    MODEL,
    Turn,
    calls,
    calls_with,
    chunk,
    in_turn,
    refuses,
    says,
)
from .conftest import Ask, CommandLine, Serve, asking
from .test_output import PNG, SHOWS_IMAGE

IMAGE_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
HOSTILE = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m \rend"


def read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5
    return notebook


def spoken(notebook: NotebookNode) -> list[tuple[str, str]]:
    """What is in a transcript, as pairs of who and what."""
    return [
        ("code" if cell.cell_type == "code" else cell.metadata["docker_interpreter"]["role"], cell.source)
        for cell in notebook.cells
    ]


def kept_session(run: subprocess.CompletedProcess[str]) -> str:
    """The key that the user is told."""
    found = re.search(r"The session and its files are kept: --session (ask-[0-9a-f]{6}) goes on in it\.", run.stderr)
    assert found, run.stderr
    return found[1]


# -- a conversation that goes well --


def test_a_question_is_answered_over_several_calls(ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("n\n40\n2\n")
    server = endpoint(
        in_turn(
            calls("lines = open('data.csv').read().split()\nprint(lines)", text="I look.", reasoning="A file."),
            calls("sum(map(int, lines))", "sum(map(int, lines[1:]))"),
            says("The sum is 42."),
        )
    )
    run = ask(server, "What is the sum?", "--file", "data.csv")
    assert run.returncode == 0, run.stderr
    assert run.stdout == (
        "I look.\nA file.\n>>> lines = open('data.csv').read().split()\n... print(lines)\n['n', '40', '2']\n"
        ">>> sum(map(int, lines))\n>>> sum(map(int, lines[1:]))\n42\nThe sum is 42.\n"
    )
    assert "ValueError: invalid literal for int() with base 10: 'n'" in run.stderr
    assert "Transcript: ask.ipynb" in run.stderr
    # the session lives on, and has what the model made
    assert cli("run", "--session", kept_session(run), "-c", "lines[1]").stdout == "'40'\n"

    first, second, third = server.requests
    assert first["model"] == MODEL and first["stream"] is True
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert server.messages(0, "user")[0]["content"] == "What is the sum?"
    [tool] = first["tools"]
    assert tool["function"]["name"] == "run_python"
    assert tool["function"]["parameters"]["required"] == ["code"]
    assert "'data.csv'" in tool["function"]["description"]
    assert [message["content"] for message in server.messages(1, "tool")] == ["['n', '40', '2']"]
    assert server.messages(1, "assistant")[0]["reasoning_content"] == "A file."
    made = [call["id"] for message in server.messages(2, "assistant") for call in message["tool_calls"]]
    answered = [message["tool_call_id"] for message in server.messages(2, "tool")]
    assert made == answered and len(set(made)) == 3
    error, total = (message["content"] for message in server.messages(2, "tool")[1:])
    assert "----> 1 sum(map(int, lines))" in error and error.endswith("with base 10: 'n'")
    assert total == "42"
    assert third["messages"][: len(second["messages"])] == second["messages"]


def test_the_transcript_is_a_notebook_that_can_be_replayed(
    ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("42\n")
    code = ["n = int(open('data.csv').read())", "1 / 0", "n"]
    server = endpoint(in_turn(calls(code[0], text="I *look*.", reasoning="hm\nhm"), calls(*code[1:]), says("**42**")))
    assert ask(server, "How many?", "--file", "data.csv", "-o", "out/it.ipynb").returncode == 0
    notebook = read(tmp_path / "out" / "it.ipynb")
    assert spoken(notebook) == [
        ("question", "How many?"),
        ("reasoning", "> hm\n> hm"),
        ("thought", "I *look*."),
        *(("code", one) for one in code),
        ("answer", "**42**"),
    ]
    assert notebook.metadata["docker_interpreter"]["model"] == MODEL
    *_, failed, last, _ = notebook.cells
    assert (failed.outputs[0].ename, failed.metadata.tags) == ("ZeroDivisionError", ["raises-exception"])
    assert (last.outputs[0].data["text/plain"], last.execution_count) == ("42", 3)
    replayed = cli("replay", "out/it.ipynb", "--check", "--file", "data.csv")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "3 of 3 cells put out what was recorded" in replayed.stdout


def test_files_beside_the_transcript_are_named_in_it(
    ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path
) -> None:
    for name in ("data.csv", "elsewhere/other.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("42\n")
    server = endpoint(in_turn(calls("open('data.csv').read()"), says("done")))
    assert ask(server, "?", "--file", "data.csv", "--file", "elsewhere/other.csv").returncode == 0
    assert read(tmp_path / "ask.ipynb").metadata["docker_interpreter"]["files"] == ["data.csv"]
    assert cli("replay", "ask.ipynb", "--check").returncode == 0


def test_a_transcript_is_never_written_over_another_unless_it_is_named(
    ask: Ask, endpoint: Serve, tmp_path: Path
) -> None:
    server = endpoint(in_turn(says("It is so.")))
    (tmp_path / "ask.ipynb").write_text("mine")
    assert "Transcript: ask-2.ipynb" in ask(server).stderr
    assert (tmp_path / "ask.ipynb").read_text() == "mine"
    assert spoken(read(tmp_path / "ask-2.ipynb"))[-1] == ("answer", "It is so.")
    assert "Transcript: ask.ipynb" in ask(server, "?", "-o", "ask.ipynb").stderr
    assert spoken(read(tmp_path / "ask.ipynb"))[-1] == ("answer", "It is so.")


def test_a_named_session_remembers(ask: Ask, endpoint: Serve, cli: CommandLine) -> None:
    assert cli("run", "--session", "remembers-asked", "-c", "x = 40").returncode == 0
    run = ask(endpoint(in_turn(calls("x + 2"), says("42"))), "?", "--session", "remembers-asked")
    assert run.stdout == ">>> x + 2\n42\n42\n"
    assert "--session" not in run.stderr


def test_the_question_from_standard_input(cli: CommandLine, ask: Ask, endpoint: Serve) -> None:
    server = endpoint(in_turn(says("Yes.")))
    assert cli(*asking(server, "-"), stdin="Is it so?\n").stdout == "Yes.\n"
    assert server.messages(0, "user")[0]["content"] == "Is it so?\n"
    assert cli(*asking(server, "-"), stdin=" \n").returncode == 2


def test_json(ask: Ask, endpoint: Serve, tmp_path: Path) -> None:
    server = endpoint(in_turn(calls(SHOWS_IMAGE, "1 / 0", text="I draw."), calls_with("{"), says("Drawn.")))
    run = ask(server, "?", "--json")
    assert run.returncode == 0
    records = [json.loads(line) for line in run.stdout.splitlines()]
    kinds = [(one["type"], one.get("step")) for one in records]
    assert kinds == [
        ("thought", 1),
        ("cell", 1),
        ("cell", 1),
        ("thought", 2),
        ("unreadable", 2),
        ("answer", 2),
        ("end", None),
    ]
    thought, drawn, failed, _, unreadable, answer, end = records
    assert (thought["text"], thought["calls"]) == ("I draw.", 2)
    assert drawn["code"] == SHOWS_IMAGE
    [output] = drawn["outputs"]
    assert (tmp_path / output["files"]["image/png"]).read_bytes() == PNG
    assert (failed["status"], failed["error"]["name"]) == ("error", "ZeroDivisionError")
    assert (unreadable["arguments"], answer["text"]) == ("{", "Drawn.")
    assert (end["outcome"], end["steps"], end["tokens"], end["error"]) == ("answered", 2, 300, None)
    assert (tmp_path / end["transcript"]).exists() and end["session"] == drawn["session"]


def test_on_a_terminal(ask: Ask, endpoint: Serve, cli: CommandLine) -> None:
    server = endpoint(
        in_turn(calls("print('\\x1b[31mred\\x1b[0m')", text=f"I {HOSTILE}", reasoning="hm"), says(HOSTILE))
    )
    code, written = cli.on_a_terminal(*asking(server))
    assert code == 0
    assert b"title" not in written and b"\x1b[2J" not in written
    assert b"\x1b[2mhm" in written
    assert b"\x1b[31mred\x1b[0m\r\n" in written  # what the code printed, in its colours
    # what the model said has none, and no carriage return of its own
    assert written.decode().count("red \r\nend") == 2
    assert "1 print(" in strip_escapes(written.decode())


def test_a_model_can_not_write_to_the_terminal_through_code_or_a_pipe(ask: Ask, endpoint: Serve) -> None:
    run = ask(endpoint(in_turn(calls(f"print('{HOSTILE}')", text=HOSTILE), refuses(500, HOSTILE))))
    assert run.returncode == 125
    assert "\x1b" not in run.stdout + run.stderr and "\x07" not in run.stdout + run.stderr
    assert "title" not in run.stdout + run.stderr


# -- pictures --


def pictures_in(request: dict[str, Any]) -> list[str]:
    return [
        part["image_url"]["url"]
        for message in request["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def test_plots_are_saved_and_shown_to_the_model(ask: Ask, endpoint: Serve, tmp_path: Path) -> None:
    server = endpoint(in_turn(calls(SHOWS_IMAGE, SHOWS_IMAGE, text="I draw."), says("Nice.")))
    run = ask(server, "?", "--image-dir", "plots")
    assert "plots/figure-1.png" in run.stdout and "plots/figure-2.png" in run.stdout
    assert (tmp_path / "plots" / "figure-2.png").read_bytes() == PNG
    assert pictures_in(server.requests[1]) == [IMAGE_URL] * 2
    assert [message["role"] for message in server.requests[1]["messages"][-3:]] == ["tool", "tool", "user"]
    assert read(tmp_path / "ask.ipynb").cells[2].outputs[0].data["image/png"].strip() == IMAGE_URL.partition(",")[2]


def test_no_images(ask: Ask, endpoint: Serve) -> None:
    server = endpoint(in_turn(calls(SHOWS_IMAGE), says("done")))
    assert ask(server, "?", "--no-images").returncode == 0
    assert pictures_in(server.requests[1]) == []
    assert server.messages(1, "tool")[0]["content"] == "[image/png 1x1, 70 bytes]"


def test_a_model_that_can_not_see_goes_on_without_pictures(ask: Ask, endpoint: Serve) -> None:
    turns = in_turn(calls(SHOWS_IMAGE), calls(SHOWS_IMAGE), says("done"))

    def script(request: dict[str, Any]) -> Turn:
        return refuses(400, "This model takes text only") if pictures_in(request) else turns(request)

    server = endpoint(script)
    run = ask(server)
    assert run.returncode == 0
    assert run.stderr.count("Going on without pictures") == 1
    assert [len(pictures_in(request)) for request in server.requests] == [0, 1, 0, 0]


# -- limits --


@pytest.mark.parametrize("sums_up", [True, False])
def test_a_model_that_never_stops_calling_has_to_sum_up(
    ask: Ask, endpoint: Serve, tmp_path: Path, sums_up: bool
) -> None:
    def script(request: dict[str, Any]) -> Turn:
        return says("So far: 1.") if sums_up and "tools" not in request else calls("n = globals().get('n', 0) + 1\nn")

    server = endpoint(script)
    run = ask(server, "?", "--max-steps", "3")
    assert run.returncode == 1
    assert "The limit of 3 steps (--max-steps) is reached" in run.stderr
    assert ["tools" in request for request in server.requests] == [True] * 3 + [False]
    assert len([cell for cell in read(tmp_path / "ask.ipynb").cells if cell.cell_type == "code"]) == 3
    assert run.stdout.endswith("\nSo far: 1.\n" if sums_up else "\n3\n")
    kept_session(run)


@pytest.mark.parametrize("counted", [True, False])
def test_the_limit_of_tokens(ask: Ask, endpoint: Serve, counted: bool) -> None:
    """Counted by the endpoint each turn costs 100; else it is estimated, and the first message alone costs more."""
    server = endpoint(in_turn(calls("1", counted=counted)))
    run = ask(server, "?", "--max-tokens", "250" if counted else "50")
    assert run.returncode == 1
    assert len(server.requests) == (3 if counted else 1)
    assert f"The limit of {250 if counted else 50} tokens (--max-tokens) is reached" in run.stderr


def test_a_reply_that_never_ends_is_cut_at_the_limit_of_tokens(ask: Ask, endpoint: Serve, tmp_path: Path) -> None:
    server = endpoint(in_turn(Turn([chunk({"content": "again and again "})] * 500, hold=True)))
    run = ask(server, "?", "--max-tokens", "1000")
    assert run.returncode == 1
    assert 4000 <= len(run.stdout) < 4100
    assert "The reply was cut off here." in spoken(read(tmp_path / "ask.ipynb"))[2][1]


def test_a_cell_that_runs_too_long_is_interrupted_and_the_model_is_told(ask: Ask, endpoint: Serve) -> None:
    server = endpoint(in_turn(calls("import time\ntime.sleep(60)"), says("Too slow.")))
    run = ask(server, "?", "--timeout", "1")
    assert run.returncode == 0
    assert "interrupted after its time limit of 1 s" in server.messages(1, "tool")[0]["content"]
    assert "more than 1 seconds" in server.requests[0]["tools"][0]["function"]["description"]


# -- how it can be stopped --


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    return errors


def test_ctrl_c_stops_the_cell_and_keeps_what_it_did(
    ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path
) -> None:
    server = endpoint(in_turn(calls("left = 5\nprint('begun', flush=True)\nimport time\ntime.sleep(300)")))
    with cli.start(*asking(server, "?", "--session", "asked-and-stopped")) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "begun\n":
            assert process.poll() is None
        errors = stop(process)
    assert "KeyboardInterrupt" in errors and "Stopped." in errors
    assert "--session asked-and-stopped goes on in it" in errors
    assert cli("run", "--session", "asked-and-stopped", "-c", "left").stdout == "5\n"
    cell = read(tmp_path / "ask.ipynb").cells[-1]
    assert [output.output_type for output in cell.outputs] == ["stream", "error"]
    assert len(server.requests) == 1


def test_ctrl_c_stops_the_stream_and_keeps_what_was_said(
    ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path
) -> None:
    server = endpoint(in_turn(Turn([chunk({"content": "I begin\n"})], hold=True)))
    with cli.start(*asking(server)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "I begin\n"
        errors = stop(process)
    assert "Traceback" not in errors and "Stopped." in errors
    assert spoken(read(tmp_path / "ask.ipynb"))[1:] == [
        ("thought", "I begin"),
        ("notice", "*The reply was cut off here.*"),
    ]


def test_a_kill_loses_nothing_of_the_transcript(ask: Ask, endpoint: Serve, cli: CommandLine, tmp_path: Path) -> None:
    server = endpoint(in_turn(calls("1 + 1", text="I add."), calls("print('begun', flush=True)\nwhile True: pass")))
    with cli.start(*asking(server)) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "begun\n":
            assert process.poll() is None
        process.kill()
        process.communicate(timeout=60)
    notebook = read(tmp_path / "ask.ipynb")
    assert [role for role, _ in spoken(notebook)] == ["question", "thought", "code", "code"]
    assert notebook.cells[2].outputs[0].data["text/plain"] == "2"
    key = notebook.metadata["docker_interpreter"]["session"]
    assert cli("sessions", "stop", key).returncode == 0


def test_a_reader_that_has_had_enough_ends_it_quietly(ask: Ask, endpoint: Serve, cli: CommandLine) -> None:
    server = endpoint(in_turn(calls("for number in range(1_000_000): print(number)"), says("done")))
    with cli.start(*asking(server)) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(">>> ")
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 141
    assert "Traceback" not in errors and "fault" not in errors


def test_every_outcome_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == set(get_args(Outcome))
    assert [EXIT_CODES[one] for one in ("answered", "steps", "tokens", "stopped")] == [0, 1, 1, 130]
