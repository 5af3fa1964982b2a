"""The code in a tool call's arguments, however a model has written it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.model_code import MOST_CHARACTERS, WANTED, code_of

CODE = 'import os\nprint("a\\n", {1: [2]})'
FENCED = f"```python\n{CODE}\n```"


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps({"code": CODE}),
        json.dumps({"code": CODE}, indent=2) + "\n",
        json.dumps({"code": CODE, "language": "python"}),
        json.dumps({"code": CODE}).replace("\\n", "\n", 1),
        json.dumps({"code": FENCED}),
        json.dumps({"code": f"\n```py\r\n{CODE}\n```\n"}),
        json.dumps({"source": CODE}),
        json.dumps({"code": CODE.split("\n")}),
        json.dumps({"code": CODE.splitlines(keepends=True)}),
        json.dumps(json.dumps({"code": CODE})),
        json.dumps(json.dumps(json.dumps({"code": CODE}))),
        json.dumps(CODE),
        "{}" + json.dumps({"code": CODE}),
        f"```json\n{json.dumps({'code': CODE})}\n```",
        FENCED,
        f"```\n{CODE}\n```",
        f"```python\n{CODE}",
        CODE,
    ],
)
def test_what_models_send(arguments: str) -> None:
    assert code_of(arguments) == CODE


@given(st.text(min_size=1).filter(lambda code: code.strip() and "```" not in code))
def test_any_code_in_proper_json_stays_as_it_is(code: str) -> None:
    assert code_of(json.dumps({"code": code})) == code


def test_two_fences_are_left_alone() -> None:
    text = "```\na\n```\nb\n```\nc\n```"
    assert code_of(json.dumps({"code": text})) == text
    markdown = "text = '''\n```\n'''"
    assert code_of(json.dumps({"code": markdown})) == markdown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", "has no code"),
        ("{}", "no text named 'code', but nothing"),
        ('{"code": " "}', "has no code"),
        ("null", ""),
        ("[1]", "are a list"),
        ('{"code": 1}', "no text named 'code', but 'code'"),
        ('{"a": "1", "b": "2"}', "no text named 'code', but 'a', 'b'"),
        ('{"code": "print(1)', "end in the middle"),
        ('{"code": "print(1)"', "end in the middle"),
        ('{"code":', "end in the middle"),
        ('{"code": "print("a")"}', "are no JSON (Expecting ',' delimiter at character 17)"),
        ("{'code': 'print(1)'}", "are no JSON"),
        ('{"code": "1"}{"code": "2"}', "are no JSON (Extra data"),
        ('{"code": ' + "1" * 10_000 + "}", "no JSON that can be read"),
        ("[" * 100_000, "are nested too deeply"),
        ('{"code": "' + "x" * MOST_CHARACTERS + '"}', f"at most {MOST_CHARACTERS} are taken"),
        (json.dumps(json.dumps(json.dumps(json.dumps(json.dumps({"code": "1"}))))), "JSON in JSON"),
    ],
)
def test_what_can_not_be_read_is_told_in_a_sentence(arguments: str, reason: str) -> None:
    if not reason:
        assert code_of(arguments) == arguments  # bare code, which Python itself will judge
        return
    with pytest.raises(ValueError) as raised:
        code_of(arguments)
    assert reason in str(raised.value)
    assert WANTED in str(raised.value) or "at most" in reason
    assert len(str(raised.value)) < 600


def test_halves_of_characters_are_replaced() -> None:
    assert code_of('{"code": "\\ud800"}') == "?"
    assert code_of('{"code": "\\ud83d\\ude00"}') == "\U0001f600"


@given(st.text())
def test_anything_is_code_or_a_value_error(arguments: str) -> None:
    try:
        code = code_of(arguments)
    except ValueError:
        return
    assert code.strip()
    code.encode()


@pytest.mark.parametrize("piece", ["`", "```\n", '"', '\\"', "{}", "\n", "{", " "])
def test_hostile_arguments_take_no_time(piece: str) -> None:
    begin = time.monotonic()
    for arguments in (piece * (MOST_CHARACTERS // len(piece)), json.dumps({"code": piece * 400_000})):
        try:
            code_of(arguments)
        except ValueError as error:
            assert str(error)
    assert time.monotonic() - begin < 20
