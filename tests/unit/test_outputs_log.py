"""The model of a cell's outputs: what a notebook would show, within its budget, whatever comes in."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_manager.outputs import (
    Display,
    DisplayRegistry,
    Error,
    Output,
    OutputLog,
    Result,
    Stream,
    error_from_content,
    to_nbformat,
)

MIB = 1 << 20


def stream(text: str, name: str = "stdout") -> dict[str, object]:
    return {"name": name, "text": text}


def display(text: str, display_id: str | None = None, mime: str = "text/plain") -> dict[str, object]:
    transient = {"display_id": display_id} if display_id else {}
    return {"data": {mime: text}, "metadata": {}, "transient": transient}


def log_of(*messages: tuple[str, Mapping[str, object]], max_bytes: int = MIB, **options: Any) -> OutputLog:
    log = OutputLog(max_bytes, **options)
    for msg_type, content in messages:
        log.apply(msg_type, content)
    return log


def written(*chunks: str, max_bytes: int = MIB) -> str:
    log = log_of(*(("stream", stream(chunk)) for chunk in chunks), max_bytes=max_bytes)
    texts = [output.text for output in log.outputs if isinstance(output, Stream)]
    assert len(texts) == len(log.outputs) <= 1
    return "".join(texts)


def kept_bytes(outputs: tuple[Output, ...]) -> int:
    return sum(len(repr(to_nbformat(output)).encode("utf-8", "replace")) for output in outputs)


def texts(log: OutputLog) -> list[object]:
    return [output.data["text/plain"] for output in log.outputs if isinstance(output, Display | Result)]


# -- streams --


def test_chunks_of_one_stream_merge_until_another_output_comes() -> None:
    log = log_of(
        ("stream", stream("a")),
        ("stream", stream("b\n")),
        ("stream", stream("oops", "stderr")),
        ("stream", stream("c")),
        ("display_data", display("d")),
        ("stream", stream("e")),
    )
    assert log.outputs == (
        Stream("stdout", "ab\n"),
        Stream("stderr", "oops"),
        Stream("stdout", "c"),
        Display({"text/plain": "d"}, {}, None),
        Stream("stdout", "e"),
    )


def test_a_live_view_gets_the_chunk_as_it_came() -> None:
    log = OutputLog(MIB)
    log.apply("stream", stream("10%"))
    assert log.apply("stream", stream("\r20%")) == Stream("stdout", "\r20%")
    assert log.apply("stream", stream("")) is None
    assert log.outputs == (Stream("stdout", "20%"),)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["abc\rX"], "Xbc"),
        (["abc", "\r", "X"], "Xbc"),
        (["abc\r\n", "d"], "abc\nd"),
        (["abc\r", "\nd"], "abc\nd"),
        (["one\ntwo\rT\nthree"], "one\nTwo\nthree"),
        (["ab\bX"], "aX"),
        (["\b\ba"], "a"),
        (["ab\n\bX"], "ab\nX"),
        (["a\r\r\rb"], "b"),
        (["50%\r\x1b[K7%"], "7%"),
        (["50%\r\x1b[2", "K7%"], "7%"),
        (["downloading\r\x1b[2Kdone"], "done"),
        (["\x1b[31mred\x1b[0m"], "\x1b[31mred\x1b[0m"),
        (["\r\x1b[32m10%\x1b[0m", "\r\x1b[32m20%\x1b[0m"], "\x1b[0m\x1b[32m20%\x1b[0m"),
        (["\r\x1b[32m10%\x1b[", "0m|\r\x1b[3", "2m20%\x1b[0m|\n"], "\x1b[0m\x1b[32m20%\x1b[0m|\n"),
    ],
)
def test_carriage_returns_and_backspaces_act_as_on_a_terminal(chunks: list[str], expected: str) -> None:
    assert written(*chunks) == expected


def test_a_progress_bar_collapses_to_its_last_state() -> None:
    bar = [f"\r{n:3d}%|{'█' * (n // 10):10}| {n}/100" for n in range(101)]
    assert written(*bar, "\n", "done\n") == f"100%|{'█' * 10}| 100/100\ndone\n"


def terminal(text: str) -> str:
    """The reference: one character after the other."""
    lines: list[str] = []
    line: list[str] = []
    cursor = 0
    for character in text:
        if character == "\n":
            lines.append("".join(line) + "\n")
            line, cursor = [], 0
        elif character == "\r":
            cursor = 0
        elif character == "\b":
            cursor = max(0, cursor - 1)
        else:
            line[cursor : cursor + 1] = [character]
            cursor += 1
    return "".join([*lines, *line])


@given(st.lists(st.text(alphabet="ab é\r\b\n", max_size=12), max_size=12))
def test_any_chunking_gives_what_a_terminal_shows(chunks: list[str]) -> None:
    assert written(*chunks) == terminal("".join(chunks))


def test_an_endless_line_of_carriage_returns_takes_bounded_memory() -> None:
    log = OutputLog(MIB)
    for n in range(2000):
        log.apply("stream", stream(f"{n:05d}\r" * 100))
    assert log.outputs == (Stream("stdout", "01999"),)
    assert log.left_out_bytes == 0


def test_a_line_without_end_is_kept_whole_within_the_budget() -> None:
    assert written(*["x" * 1000] * 100) == "x" * 100_000


def test_a_flood_keeps_its_beginning_and_its_end() -> None:
    lines = [f"line {n:07d}\n" for n in range(200_000)]
    log = log_of(*(("stream", stream("".join(lines[n : n + 500]))) for n in range(0, 200_000, 500)))
    [output] = log.outputs
    assert isinstance(output, Stream)
    head, marker, tail = output.text.partition("… ")[0], log.left_out_bytes, output.text.rpartition(" …\n")[2]
    assert head.startswith("line 0000000\nline 0000001\n")
    assert tail.endswith("line 0199998\nline 0199999\n")
    assert f"… {marker} bytes left out (limit {MIB} bytes for a cell) …\n" in output.text
    assert len(head) + len(tail) + marker in (len("".join(lines)), len("".join(lines)) + 1)
    assert len(head) > MIB // 3
    assert len(tail) > MIB // 4


def test_one_huge_chunk_is_the_same_as_a_flood() -> None:
    text = "".join(f"line {n:07d}\n" for n in range(200_000))
    log = log_of(("stream", stream(text)))
    [output] = log.outputs
    assert isinstance(output, Stream)
    assert output.text.startswith("line 0000000\n")
    assert output.text.endswith("line 0199999\n")
    assert len(output.text) < MIB
    assert log.left_out_bytes > len(text) - MIB


def test_a_huge_chunk_of_backspaces_takes_no_time_to_speak_of() -> None:
    text = "start\n" + "a\b" * (16 * MIB) + "\nend\n"
    begin = time.process_time()
    shown = written(text, max_bytes=16 * MIB)
    assert shown.startswith("start\n")
    assert shown.endswith("\nend\n")
    # A character at a time it would be ten times as long.
    assert time.process_time() - begin < 5


def test_text_that_fits_is_never_cut() -> None:
    text = "".join(f"{n}\n" for n in range(100_000))
    assert len(text) > MIB // 2
    assert written(*(text[n : n + 7777] for n in range(0, len(text), 7777))) == text


def test_lone_surrogates_are_replaced_so_that_the_text_can_be_written() -> None:
    assert written("a\ud800b") == "a?b"
    log = log_of(("display_data", {"data": {"text/plain": "\udfff", "application/json": {"\ud800": ["\ud800"]}}}))
    assert texts(log) == ["?"]
    assert str(to_nbformat(log.outputs[0])).encode()


# -- bundles --


def test_displays_and_results_keep_their_whole_bundle() -> None:
    content = {
        "data": {
            "text/plain": "p",
            "text/html": "<b>p</b>",
            "application/vnd.x.v1+json": {"a": [1, None, True]},
        },
        "metadata": {"image/png": {"width": 3}},
        "execution_count": 7,
    }
    log = OutputLog(MIB)
    result = log.apply("execute_result", content)
    assert result == Result(content["data"], content["metadata"], 7)  # type: ignore[arg-type]
    assert log.outputs == (result,)


def test_outputs_make_a_valid_notebook() -> None:
    log = log_of(
        ("stream", stream("a")),
        ("display_data", display("<b>x</b>", "id-1", "text/html")),
        ("execute_result", {"data": {"text/plain": "1", "application/json": [1]}, "execution_count": 3}),
        ("execute_result", {"data": {"text/plain": "1"}, "execution_count": "3"}),
        ("error", {"ename": "E", "evalue": "v", "traceback": ["t"]}),
    )
    cell = nbformat.v4.new_code_cell("1", outputs=[to_nbformat(output) for output in log.outputs])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert len(cell.outputs) == 5


def test_a_bundle_over_the_budget_becomes_a_sentence_and_keeps_its_text() -> None:
    log = log_of(
        ("display_data", {"data": {"text/plain": "<Figure>", "image/png": "A" * MIB}, "metadata": {}}),
        ("display_data", display("small")),
    )
    sentence = (
        f"<Figure>\n[output of {MIB + 27} bytes of image/png left out: "
        f"no room within the limit of {MIB} bytes for a cell]"
    )
    assert texts(log) == [sentence, "small"]
    assert log.left_out_bytes == MIB + 27


def test_json_is_measured_too() -> None:
    log = log_of(("display_data", {"data": {"application/json": {"x": list(range(200_000))}}}))
    [text] = texts(log)
    assert str(text).startswith("[output of more than ")
    assert "application/json left out" in str(text)


def test_a_plot_after_a_flood_of_text_is_still_kept() -> None:
    log = log_of(
        *[("stream", stream("x" * 9999 + "\n"))] * 300,
        ("display_data", display("A" * 9999, mime="image/png")),
    )
    assert isinstance(log.outputs[-1], Display)
    assert log.outputs[-1].data == {"image/png": "A" * 9999}


def test_the_number_of_outputs_is_bounded_and_the_last_ones_stay() -> None:
    log = log_of(*(("display_data", display(str(n))) for n in range(1000)), max_outputs=100)
    shown = texts(log)
    assert len(log.outputs) <= 100
    assert shown[:3] == ["0", "1", "2"]
    assert shown[-3:] == ["997", "998", "999"]
    [marker] = [output for output in log.outputs if isinstance(output, Stream)]
    assert marker.text.startswith(f"… {1000 - len(shown)} outputs, ")


def test_twenty_thousand_small_displays_are_all_kept_by_default() -> None:
    log = log_of(*(("display_data", display(str(n))) for n in range(20_000)), max_bytes=16 * MIB)
    assert texts(log) == [str(n) for n in range(20_000)]


def test_alternating_streams_are_bounded_too() -> None:
    log = OutputLog(MIB)
    for n in range(50_000):
        log.apply("stream", stream(f"{n}\n", "stdout" if n % 2 else "stderr"))
    assert kept_bytes(log.outputs) < MIB
    assert log.outputs[0] == Stream("stderr", "0\n")
    assert log.outputs[-1] == Stream("stdout", "49999\n")


# -- updates --


def test_an_update_changes_every_display_of_its_id() -> None:
    log = log_of(
        ("display_data", display("old", "a")),
        ("display_data", display("old", "a")),
        ("display_data", display("other", "b")),
    )
    assert log.apply("update_display_data", display("new", "a")) == Display({"text/plain": "new"}, {}, "a")
    assert texts(log) == ["new", "new", "other"]


def test_an_update_reaches_a_display_of_an_earlier_cell() -> None:
    registry = DisplayRegistry()
    first = log_of(("display_data", display("old", "a")), registry=registry)
    second = OutputLog(MIB, registry=registry)
    second.apply("update_display_data", display("new", "a"))
    assert texts(first) == ["new"]
    assert second.outputs == ()


def test_an_update_of_nothing_known_shows_nothing_and_is_not_malformed() -> None:
    log = OutputLog(MIB)
    assert log.apply("update_display_data", display("new", "nobody")) is None
    assert (log.outputs, log.malformed) == ((), 0)


def test_updates_of_what_was_cleared_are_not_found() -> None:
    log = log_of(("display_data", display("old", "a")), ("clear_output", {"wait": False}))
    assert log.apply("update_display_data", display("new", "a")) is None
    assert log.outputs == ()


def test_updates_count_against_the_budget_of_the_display_s_own_log() -> None:
    log = log_of(("display_data", display("small", "a")))
    for _ in range(50):
        log.apply("update_display_data", display("x" * 400_000, "a"))
    assert texts(log) == ["x" * 400_000]
    shown = log.apply("update_display_data", display("x" * MIB, "a"))
    assert isinstance(shown, Display)
    assert len(str(shown.data["text/plain"])) == MIB
    assert "left out" in str(texts(log)[0])
    log.apply("update_display_data", display("y", "a"))
    assert texts(log) == ["y"]


def test_the_registry_is_bounded_and_forgets_the_longest_unused() -> None:
    registry = DisplayRegistry(max_displays=3)
    log = log_of(*(("display_data", display("old", name)) for name in "abc"), registry=registry)
    log.apply("update_display_data", display("new a", "a"))
    log.apply("display_data", display("old", "d"))
    log.apply("update_display_data", display("new b", "b"))
    assert len(registry) == 3
    assert texts(log) == ["new a", "old", "old", "old"]


def test_ten_thousand_displays_of_one_id_cost_no_more_than_a_few() -> None:
    registry = DisplayRegistry()
    log = log_of(*[("display_data", display("old", "a"))] * 10_000, registry=registry, max_bytes=16 * MIB)
    log.apply("update_display_data", display("new", "a"))
    assert texts(log).count("new") == 64


def test_the_registry_keeps_no_log_alive() -> None:
    registry = DisplayRegistry()
    log_of(("display_data", display("old", "a")), registry=registry)
    gc.collect()
    assert OutputLog(MIB, registry=registry).apply("update_display_data", display("new", "a")) is None


# -- clear_output --


def test_clear_output_clears_at_once() -> None:
    log = log_of(("stream", stream("a")), ("display_data", display("b")), ("clear_output", {"wait": False}))
    assert log.outputs == ()


def test_clear_output_that_waits_clears_with_the_next_output() -> None:
    log = log_of(("stream", stream("frame 1")), ("clear_output", {"wait": True}))
    assert log.outputs == (Stream("stdout", "frame 1"),)
    log.apply("stream", stream("frame 2"))
    assert log.outputs == (Stream("stdout", "frame 2"),)


def test_clearing_makes_room_again() -> None:
    log = OutputLog(MIB)
    for n in range(20):
        log.apply("clear_output", {"wait": True})
        log.apply("display_data", display(str(n) * 400_000 if n < 10 else "last", mime="text/plain"))
        log.apply("stream", stream("x" * 500_000))
    assert texts(log) == ["last"]
    assert log.left_out_bytes == 0


# -- errors --


def test_the_last_error_is_kept() -> None:
    log = log_of(
        ("error", {"ename": "A", "evalue": "1", "traceback": []}),
        ("error", {"ename": "B", "evalue": "2", "traceback": ["x", "y"]}),
    )
    assert log.error == Error("B", "2", ("x", "y"))
    assert log.outputs == (Error("A", "1"), Error("B", "2", ("x", "y")))


def test_an_error_survives_a_flood_before_and_after_it() -> None:
    log = OutputLog(MIB)
    flood = stream("x" * 9999 + "\n")
    for _ in range(300):
        log.apply("stream", flood)
    error = log.apply("error", {"ename": "E", "evalue": "v", "traceback": ["t"]})
    assert log.outputs[-1] is error
    for _ in range(300):
        log.apply("stream", flood)
    assert log.error is error
    assert kept_bytes(log.outputs) < 1.1 * MIB


def test_a_traceback_of_any_size_is_cut_in_its_middle() -> None:
    error = error_from_content(
        {"ename": "E" * 500, "evalue": "v" * MIB, "traceback": [f"frame {n}" for n in range(100_000)]}, 10_000
    )
    assert error is not None
    assert error.name == "E" * 128
    assert len(error.value) <= 2500
    assert error.traceback[0] == "frame 0"
    assert error.traceback[-1] == "frame 99999"
    assert len(error.traceback) < 200
    assert any("left out" in item for item in error.traceback)


# -- whatever comes --


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("stream", {}),
        ("stream", {"name": "stdout"}),
        ("stream", {"name": "stdout", "text": None}),
        ("stream", {"name": "stdin", "text": "a"}),
        ("stream", {"name": ["stdout"], "text": "a"}),
        ("display_data", {"data": None}),
        ("display_data", {"data": {}}),
        ("display_data", {"data": {"text/plain": 3}}),
        ("display_data", {"data": {"no mime type": "a"}}),
        ("display_data", {"data": {"x/y\n": "a"}}),
        ("display_data", {"data": {"text/html\x1b]0;": "a"}}),
        ("execute_result", {"data": []}),
        ("error", {"ename": 1, "evalue": "", "traceback": []}),
        ("error", {"ename": "E", "evalue": "", "traceback": "text"}),
        ("error", {"ename": "E", "evalue": "", "traceback": [1]}),
        ("update_display_data", {"data": {"text/plain": "a"}}),
        ("update_display_data", {"data": {"text/plain": "a"}, "transient": {"display_id": "x" * 1000}}),
        ("clear_output", {"wait": "yes"}),
        ("stream", ["name"]),
    ],
)
def test_a_malformed_message_is_counted_and_changes_nothing(msg_type: str, content: Any) -> None:
    log = log_of(("stream", stream("before")))
    assert log.apply(msg_type, content) is None
    assert log.outputs == (Stream("stdout", "before"),)
    assert (log.malformed, log.error) == (1, None)


def test_only_the_malformed_part_of_a_bundle_is_dropped() -> None:
    log = log_of(("display_data", {"data": {"text/plain": "ok", "image/png": {"not": "text"}}, "metadata": 3}))
    assert log.outputs == (Display({"text/plain": "ok"}, {}, None),)
    assert log.malformed == 1


def test_json_nested_too_deeply_is_malformed() -> None:
    nested: list[object] = []
    for _ in range(900):
        nested = [nested]
    log = log_of(("display_data", {"data": {"application/json": nested}}))
    assert (log.outputs, log.malformed) == ((), 1)


def test_other_messages_are_none_of_its_business() -> None:
    log = log_of(("status", {"execution_state": "idle"}), ("comm_msg", {}))
    assert (log.outputs, log.malformed) == ((), 0)


def test_a_budget_that_can_hold_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes >= 4096"):
        OutputLog(100)
    with pytest.raises(ValueError, match="max_outputs >= 8"):
        OutputLog(MIB, max_outputs=2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.just("x" * 3000),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=8,
)
mimes = st.sampled_from(["text/plain", "image/png", "application/json", "text/html", "bad"])
bundles = st.dictionaries(mimes, json_values, max_size=3)
contents = st.one_of(
    st.dictionaries(st.text(max_size=9), json_values, max_size=4),
    st.fixed_dictionaries({"name": st.sampled_from(["stdout", "stderr"]), "text": st.text(max_size=3000)}),
    st.fixed_dictionaries({"name": st.just("stdout"), "text": st.text(alphabet="a\r\b\n\x1b[31mK", max_size=300)}),
    st.fixed_dictionaries(
        {
            "data": bundles,
            "metadata": json_values,
            "transient": st.fixed_dictionaries({"display_id": st.sampled_from(["a", "b", "", 3])}),
            "execution_count": json_values,
        }
    ),
    st.fixed_dictionaries(
        {
            "ename": json_values,
            "evalue": json_values,
            "traceback": st.lists(st.text(max_size=900), max_size=9),
        }
    ),
    st.fixed_dictionaries({"ename": st.text(), "evalue": st.text(), "traceback": st.lists(st.text(), max_size=9)}),
    st.fixed_dictionaries({"wait": json_values}),
)
types = st.sampled_from(
    ["stream", "display_data", "execute_result", "error", "update_display_data", "clear_output", "status"]
)


@settings(max_examples=100)
@given(st.lists(st.tuples(types, contents), max_size=40))
def test_nothing_raises_and_what_is_kept_stays_bounded(messages: list[tuple[str, dict[str, Any]]]) -> None:
    log = OutputLog(4096, max_outputs=8)
    for msg_type, content in messages:
        log.apply(msg_type, content)
        outputs = log.outputs
        # The text of the marker and of each output's keys comes on top of what the budget counts.
        assert kept_bytes(outputs) < 3 * 4096
        assert len(outputs) <= 8
        cell = nbformat.v4.new_code_cell("", outputs=[to_nbformat(output) for output in outputs])
        assert nbformat.from_dict(cell).outputs == cell.outputs
