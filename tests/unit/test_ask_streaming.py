"""A streamed reply, put together from what endpoints send in pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.ask.streaming import MOST_CALLS, MOST_CHARACTERS, Delta, Reply, sound_text


def chunk(finish: str | None = None, **delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(
    index: object = None, id: object = None, name: object = None, arguments: object = None, **more: object
) -> dict[str, object]:
    fields: dict[str, object] = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}, **more}
    return {key: value for key, value in fields.items() if value is not None}


def reply_of(*chunks: object) -> Reply:
    reply = Reply()
    for one in chunks:
        reply.feed(one)
    return reply


def calls_of(*pieces: dict[str, object]) -> list[tuple[str, str, str]]:
    reply = reply_of(*(chunk(tool_calls=[one]) for one in pieces))
    return [(call.id, call.name, call.arguments) for call in reply.calls]


def test_text_and_reasoning() -> None:
    reply = Reply()
    shown = [
        reply.feed(one)
        for one in (
            chunk(role="assistant", content=""),
            chunk(reasoning_content="I th"),
            chunk(reasoning_content="ink", content=None),
            chunk(content="I s"),
            chunk(content="ay"),
            chunk("stop"),
        )
    ]
    assert [(one.text, one.reasoning) for one in shown] == [
        ("", ""),
        ("", "I th"),
        ("", "ink"),
        ("I s", ""),
        ("ay", ""),
        ("", ""),
    ]
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("I say", "I think", "stop")
    assert (reply.calls, reply.has_calls, reply.characters) == ((), False, 12)


def test_reasoning_by_its_other_name() -> None:
    reply = reply_of(chunk(reasoning="hm", reasoning_content=None))
    assert (reply.reasoning, reply.reasoning_name) == ("hm", "reasoning")


def test_content_in_parts_and_refusals() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, "c"]
    assert reply_of(chunk(content=parts)).text == "ab"
    assert reply_of(chunk(refusal="I will not.")).text == "I will not."


def test_a_call_in_pieces() -> None:
    assert calls_of(piece(0, "a", "run_python", ""), piece(0, None, None, '{"co'), piece(0, "", "", 'de": "1"}')) == [
        ("a", "run_python", '{"code": "1"}')
    ]


def test_several_calls_whose_pieces_come_mixed() -> None:
    assert calls_of(
        piece(0, "a", "f", "1"), piece(1, "b", "g", "2"), piece(0, arguments="1"), piece(1, arguments="2")
    ) == [("a", "f", "11"), ("b", "g", "22")]


def test_several_calls_in_one_chunk() -> None:
    reply = reply_of(chunk(tool_calls=[piece(0, "a", "f", "1"), piece(1, "b", "f", "2")]))
    assert [call.arguments for call in reply.calls] == ["1", "2"]


def test_an_index_that_is_always_0() -> None:
    assert calls_of(piece(0, "a", "f", "1"), piece(0, "b", "f", "2")) == [("a", "f", "1"), ("b", "f", "2")]


def test_an_id_that_is_new_in_each_piece() -> None:
    assert calls_of(piece(0, "a", "f", "1"), piece(0, "b", None, "2"), piece(0, "c", None, "3")) == [("a", "f", "123")]


def test_names_that_are_repeated_or_come_in_pieces() -> None:
    assert calls_of(piece(0, "a", "run", "1"), piece(0, "a", "run", "2")) == [("a", "run", "12")]
    assert calls_of(piece(0, "a", "run_"), piece(0, None, "python")) == [("a", "run_python", "")]


def test_no_index() -> None:
    assert calls_of(piece(None, "a", "f", "1"), piece(None, "b", "f", "2"), piece(None, "a", None, "1")) == [
        ("a", "f", "11"),
        ("b", "f", "2"),
    ]
    assert calls_of(piece(None, None, "f", "1"), piece(None, None, None, "1"), piece(None, None, "f", "2")) == [
        ("call_1", "f", "11"),
        ("call_2", "f", "2"),
    ]


def test_ids_that_are_missing_or_the_same() -> None:
    ids = [call_id for call_id, _, _ in calls_of(*(piece(at, "a" if at else None, "f", "1") for at in range(4)))]
    assert ids[:2] == ["call_1", "a"]
    assert len(set(ids)) == 4


def test_arguments_that_are_no_text() -> None:
    assert calls_of(piece(0, "a", "f", {"code": "1"})) == [("a", "f", '{"code": "1"}')]
    assert calls_of(piece(0, "a", "f", 5)) == [("a", "f", "")]


def test_what_an_endpoint_wants_back_is_kept() -> None:
    [call] = reply_of(chunk(tool_calls=[piece(0, "a", "f", "1", extra_content={"google": {"s": "x"}})])).calls
    assert call.extra == {"google": {"s": "x"}}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"total_tokens": 5}, 5),
        ({"prompt_tokens": 2, "completion_tokens": 3}, 5),
        ({"prompt_tokens": 2, "completion_tokens": None}, 2),
        ({"total_tokens": -1}, None),
        ({"total_tokens": True}, None),
        ({"total_tokens": "5"}, None),
        ({}, None),
        (None, None),
        ([5], None),
    ],
)
def test_usage(usage: object, tokens: int | None) -> None:
    assert reply_of({"choices": [], "usage": usage}).tokens == tokens


def test_the_last_usage_counts() -> None:
    assert reply_of(*({"choices": [], "usage": {"total_tokens": n}} for n in (1, 5))).tokens == 5


@pytest.mark.parametrize("name", ["content", "reasoning_content", "arguments"])
def test_a_reply_without_end_is_refused(name: str) -> None:
    long = "x" * 100_000
    one = chunk(tool_calls=[piece(0, arguments=long)]) if name == "arguments" else chunk(**{name: long})
    reply = reply_of(*[one] * (MOST_CHARACTERS // 100_000))
    with pytest.raises(ValueError, match="longer than"):
        reply.feed(one)


def test_calls_without_end_are_refused() -> None:
    reply = reply_of(*(chunk(tool_calls=[piece(at, str(at), "f")]) for at in range(MOST_CALLS)))
    with pytest.raises(ValueError, match="more than 64 calls"):
        reply.feed(chunk(tool_calls=[piece(MOST_CALLS)]))


def test_names_and_ids_are_bounded() -> None:
    [(call_id, name, _)] = calls_of(piece(0, "i" * 5000, "n" * 5000), piece(0, None, "m" * 5000))
    assert (len(call_id), len(name)) == (256, 256)


def test_halves_of_characters() -> None:
    assert reply_of(chunk(content="\ud83d"), chunk(content="\ude00")).text == "\U0001f600"
    assert reply_of(chunk(content="a\ud83d"), chunk(content="b")).text == "a�b"
    assert sound_text(["ä", "", "\x00"]) == "ä\x00"


@pytest.mark.parametrize(
    "nothing",
    [None, 5, "text", [], {}, {"choices": None}, {"choices": [None]}, {"choices": [{}]}, {"choices": [{"delta": 5}]}],
)
def test_what_is_no_chunk_adds_nothing(nothing: object) -> None:
    reply = Reply()
    assert reply.feed(nothing) == Delta()
    assert (reply.text, reply.calls, reply.finish_reason) == ("", (), None)


KEYS = st.sampled_from(
    (
        *("choices", "delta", "content", "reasoning", "tool_calls", "index", "id", "function", "name", "arguments"),
        *("finish_reason", "usage", "total_tokens", "prompt_tokens", "extra_content", "type", "text"),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
PIECES = st.fixed_dictionaries({}, optional={"index": JSON, "id": JSON, "function": JSON, "extra_content": JSON})
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": JSON, "reasoning": JSON, "tool_calls": JSON | st.lists(PIECES, max_size=3)}
)


@given(st.lists(JSON | DELTAS.map(lambda delta: chunk(**delta)), max_size=5))
def test_no_chunk_breaks_it(chunks: list[Any]) -> None:
    reply = reply_of(*chunks)
    ids = [call.id for call in reply.calls]
    assert len(set(ids)) == len(ids) and all(ids)
    for text in (reply.text, reply.reasoning, *ids, *(call.arguments for call in reply.calls)):
        text.encode()
    assert reply.has_calls == bool(ids)


@given(st.lists(st.text(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_calls_come_out_as_they_went_in_however_they_are_cut(codes: list[str], chance: Any) -> None:
    whole = [json.dumps({"code": code}, ensure_ascii=False) for code in codes]
    left = dict(enumerate(whole))
    reply = reply_of(*(chunk(tool_calls=[piece(at, f"id{at}", "f")]) for at in left))
    while left:
        at = chance.choice(list(left))
        cut = chance.randint(1, 9)
        reply.feed(chunk(tool_calls=[piece(at, arguments=left[at][:cut])]))
        left[at] = left[at][cut:]
        if not left[at]:
            del left[at]
    assert [call.arguments for call in reply.calls] == [sound_text([one]) for one in whole]
