"""What counts as the same output, and what does not."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from session_manager.replay.compare import Output, compare_outputs
from session_manager.replay.sameness import Tolerance, same_text

NOW = 1_790_000_000.0
EXACT = Tolerance(replayed=(NOW, NOW + 60))
TABLE = "     a    b\n0  1.0  2.5\n1  3.0  4.5"


def stream(text: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": text}


def display(**data: object) -> Output:
    return {"output_type": "display_data", "data": {mime.replace("_", "/"): one for mime, one in data.items()}}


def error(name: str, value: str, *traceback: str) -> Output:
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": list(traceback)}


def plot(value: int = 40, change: Callable[[Image.Image], Image.Image] = lambda image: image) -> str:
    """A chart with a bar of that height, in base64."""
    image = Image.new("RGB", (320, 240), "white")
    draw = ImageDraw.Draw(image)
    draw.line([(20, 10), (20, 220), (310, 220)], "black", 2)
    for left, height in ((40, 120), (120, value), (200, 90)):
        draw.rectangle([left, 220 - height, left + 50, 220], "steelblue")
    buffer = io.BytesIO()
    change(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


SAME = [
    ("<object at 0x7f3a5c0d1e20>", "<object at 0x7f11aa0d1e90>"),
    ("CPU times: user 1 ms\nWall time: 2.31 ms\n", "CPU times: user 9 ms\nWall time: 17 s\n"),
    ("{'a': 1, 'b': {'x': 2}}", "{'b': {'x': 2}, 'a': 1}"),
    ("{3, 1, 2}", "{1, 2, 3}"),
    ("counts: {'a': 1, 'b': 2} of 2\nnext", "counts: {'b': 2, 'a': 1} of 2\nnext"),
    (
        "50%|#####     | 5/10 [00:01<00:01]\r100%|##########| 10/10 [00:02<00:00]",
        "100%|##########| 10/10 [00:07<00:00]",
    ),
    ("at 2020-01-01 10:00:00", "at 2026-09-21 14:13:21"),
    ("it is Wed Jan  1 10:00:00 2020", "it is Mon Sep 21 14:13:25 2026"),
    ("/tmp/tmpab12cd34/x", "/tmp/tmpzz99yy88/x"),
    ("7d9f1f2e-0b1c-4d5e-8f90-1a2b3c4d5e6f", "11111111-2222-4333-8444-555555555555"),
    ("\x1b[31mred\x1b[0m", "red"),
]
OTHER = [
    ("1.0", "1.1"),
    ("10", "11"),
    ("{'a': 1}", "{'a': 2}"),
    ("{'a': 1}", "{'a': True}"),
    ("[1, 2]", "[2, 1]"),
    ("2013-01-01 05:00:00", "2013-01-01 06:00:00"),
    ("sha 1f2e3d", "sha 1f2e3e"),
    ("100%|##########| 10/10 [00:02<00:00]", "90%|#########  | 9/10 [00:02<00:00]"),
    ("one line", "one line\nanother"),
    ("a  b", "a b"),
]


def test_the_moment_of_the_replay_is_in_these_examples() -> None:
    assert time.gmtime(NOW)[:5] == (2026, 9, 21, 14, 13)


@pytest.mark.parametrize(("recorded", "replayed"), SAME)
def test_noise_is_no_difference(recorded: str, replayed: str) -> None:
    assert compare_outputs([stream(recorded)], [stream(replayed)], EXACT) == []
    assert compare_outputs([display(text_plain=recorded)], [display(text_plain=replayed)], EXACT) == []


@pytest.mark.parametrize(("recorded", "replayed"), OTHER)
def test_a_change_is_a_difference(recorded: str, replayed: str) -> None:
    for make in (stream, lambda text: display(text_plain=text), lambda text: error("E", text)):
        (found,) = compare_outputs([make(recorded)], [make(replayed)], EXACT)
        assert found.what


def test_how_a_stream_was_cut_is_no_difference_and_where_it_went_is() -> None:
    assert compare_outputs([stream("a\nb\n")], [stream("a\n"), display(text_plain="x"), stream("b\n")][::2]) == []
    found = compare_outputs([stream("a\n")], [stream("a\n", "stderr")])
    assert [one.where for one in found] == ["stdout", "stderr"]


@pytest.mark.parametrize(
    ("recorded", "replayed", "ratio", "same"),
    [
        ("pi 3.14159", "pi 3.14160", 1e-4, True),
        ("pi 3.14159", "pi 3.14160", 1e-7, False),
        ("pi 3.14159", "pi 3.14160", 0.0, False),
        (TABLE, TABLE.replace("2.5", "2.50001"), 1e-3, True),
        (TABLE, TABLE.replace("2.5", "2.6"), 1e-3, False),
        ("1e-10", "1.0000001e-10", 1e-6, True),
        ("nan inf", "nan inf", 1e-6, True),
        ("x1 = 2.0", "x2 = 2.0", 0.5, False),
        ("{'a': 1.0, 'b': 2}", "{'b': 2, 'a': 1.0000001}", 1e-6, True),
    ],
)
def test_numbers_within_a_tolerance(recorded: str, replayed: str, ratio: float, same: bool) -> None:
    assert same_text(recorded, replayed, Tolerance(ratio)) is same


def test_missing_and_added_outputs_are_named_and_the_others_still_compared() -> None:
    one, two, three = (
        display(text_plain=text, **{mime: "<p>"}) for text, mime in (("1", "text_html"), ("2", "a_b"), ("3", "c_d"))
    )
    (missing,) = compare_outputs([one, two, three], [one, three])
    assert missing.where == "output 2" and "is missing" in missing.what and "2" in missing.what
    (added,) = compare_outputs([one, three], [one, two, three])
    assert "was not recorded" in added.what
    found = compare_outputs([one, two, three], [one, display(text_plain="changed", c_d="<p>")])
    assert len(found) == 2


@pytest.mark.parametrize(
    ("recorded", "replayed", "where"),
    [
        (error("ValueError", "x"), error("KeyError", "x"), "type"),
        (error("ValueError", "x"), error("ValueError", "y"), "message"),
        (error("ValueError", "x"), display(text_plain="x"), "output"),
        (display(text_plain="x"), display(text_plain="x", text_html="<b>"), "output"),
        (display(text_html="<td>1</td>"), display(text_html="<td>2</td>"), "text/html"),
        (display(**{"application_json": {"a": [1]}}), display(**{"application_json": {"a": [2]}}), "application/json"),
        (display(application_pdf="AAAA"), display(application_pdf="AAAB"), "application/pdf"),
    ],
)
def test_each_kind_of_change_is_found(recorded: Output, replayed: Output, where: str) -> None:
    found = compare_outputs([recorded], [replayed])
    assert any(where in one.where for one in found)


def test_tracebacks_and_the_order_of_json_are_no_difference() -> None:
    assert compare_outputs([error("E", "x", "line 1")], [error("E", "x", "line 2")]) == []
    a, b = ({"a": 1, "b": 2.0}, {"b": 2, "a": 1})
    assert compare_outputs([display(application_json=a)], [display(application_json=b)]) == []


NOISE: list[Callable[[Image.Image], Image.Image]] = [
    lambda image: image.filter(ImageFilter.GaussianBlur(0.4)),
    lambda image: image.point(lambda value: max(0, value - 3)),
    lambda image: image.resize((322, 241)),
]
CHANGES: list[Callable[[Image.Image], Image.Image]] = [
    lambda image: image.resize((400, 300)),
    lambda image: image.convert("L").convert("RGB"),
    lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
]


@pytest.mark.parametrize("number", range(3))
def test_images_are_compared_as_an_eye_would(number: int) -> None:
    assert compare_outputs([display(image_png=plot())], [display(image_png=plot(change=NOISE[number]))]) == []
    (found,) = compare_outputs([display(image_png=plot())], [display(image_png=plot(change=CHANGES[number]))])
    assert found.picture is not None
    with Image.open(io.BytesIO(found.picture)) as sheet:
        assert sheet.width > 3 * 320


def test_another_bar_is_another_plot_unless_that_much_is_allowed() -> None:
    outputs = [display(image_png=plot(40))], [display(image_png=plot(60))]
    assert len(compare_outputs(*outputs)) == 1
    assert compare_outputs(*outputs, Tolerance(images=1.0)) == []


@pytest.mark.parametrize("content", ["", "AAAA", "!", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 50).decode()])
def test_what_is_no_image_is_named(content: str) -> None:
    (found,) = compare_outputs([display(image_png=plot())], [display(image_png=content)])
    assert "can't be compared" in found.what


def test_an_image_that_says_it_is_huge_is_not_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    (found,) = compare_outputs(
        [display(image_png=plot())], [display(image_png=base64.b64encode(buffer.getvalue()).decode())]
    )
    assert "can't be compared" in found.what


TEXTS = st.text(max_size=60)
OUTPUTS = st.lists(
    st.builds(stream, TEXTS, st.sampled_from(["stdout", "stderr"]))
    | st.builds(lambda a, b: display(text_plain=a, text_html=b), TEXTS, TEXTS)
    | st.builds(error, TEXTS, TEXTS),
    max_size=5,
)


@given(OUTPUTS)
def test_anything_is_the_same_as_itself(outputs: list[Output]) -> None:
    assert compare_outputs(outputs, outputs, EXACT) == []


@given(st.lists(st.integers(0, 999), min_size=1, max_size=8), st.data())
def test_one_number_of_many_that_changes_is_found(numbers: list[int], data: st.DataObject) -> None:
    changed = list(numbers)
    changed[data.draw(st.integers(0, len(numbers) - 1))] += 1
    first, second = (stream(f"result: {' | '.join(map(str, one))}\n") for one in (numbers, changed))
    assert len(compare_outputs([first], [second], EXACT)) == 1


@pytest.mark.parametrize(
    "text", ["0" * 200_000, "{" * 50_000, "1 " * 50_000, "-" * 200_000, "a in " * 30_000, "[0:0" * 30_000]
)
def test_hostile_text_takes_no_unusual_time(text: str) -> None:
    begin = time.monotonic()
    assert not same_text(text, text + "x", Tolerance(0.1, replayed=(NOW, NOW)))
    assert time.monotonic() - begin < 30
