"""The ring of published messages that is kept inside for a program that was away."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_image import kept_output
from kernel_image.kept_output import DELIMITER, KeptOutput


def frames(number: int, *, cell: str = "cell", text: str = "", buffers: tuple[bytes, ...] = ()) -> list[bytes]:
    """A message on the wire."""
    header = {"msg_id": f"message {number}", "msg_type": "stream"}
    parts: list[dict[str, Any]] = [header, {"msg_id": cell}, {}, {"name": "stdout", "text": text or f"{number} "}]
    return [b"stream", DELIMITER, b"signature", *(json.dumps(part).encode() for part in parts), *buffers]


def size_of(message: list[bytes]) -> int:
    return sum(map(len, message))


def kept_with(*messages: list[bytes], max_bytes: int = 1 << 20) -> KeptOutput:
    kept = KeptOutput(max_bytes)
    for message in messages:
        kept.add(message)
    return kept


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [message["content"]["text"] for message in found]


def everything(kept: KeptOutput, start: int = 0, cell: str | None = None) -> list[str]:
    """The texts in all pages."""
    shown, whole = [], False
    while not whole:
        found, start, whole = kept.page(start, cell)
        shown += texts(found)
    return shown


def test_what_was_published_comes_back_as_it_was() -> None:
    kept = kept_with(frames(1, text="line\n", buffers=(b"\0" * 100,)))
    found, following, whole = kept.page(0, None)
    assert found == [
        {
            "header": {"msg_id": "message 1", "msg_type": "stream"},
            "parent_header": {"msg_id": "cell"},
            "metadata": {},
            "content": {"name": "stdout", "text": "line\n"},
        }
    ]
    assert (following, whole) == (1, True)
    assert kept.page(following, None) == ([], 1, True)


def test_the_oldest_go_when_there_is_no_room() -> None:
    messages = [frames(number) for number in range(10, 20)]
    kept = kept_with(*messages, max_bytes=3 * size_of(messages[0]))
    assert everything(kept) == ["17 ", "18 ", "19 "]
    assert (kept.first(), kept.next, kept.size) == (7, 10, 3 * size_of(messages[0]))


def test_a_message_larger_than_the_ring_empties_it() -> None:
    kept = kept_with(frames(1), frames(2, text="x" * 5000), max_bytes=4000)
    assert (everything(kept), kept.first(), kept.next, kept.size) == ([], 2, 2, 0)
    assert kept.after("message 1") is None
    kept.add(frames(3))
    assert everything(kept) == ["3 "]
    assert kept.page(0, None)[1] == 3


def test_a_page_is_bounded_and_the_next_goes_on_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [frames(number) for number in range(10, 20)]
    monkeypatch.setattr(kept_output, "PAGE", 2 * size_of(messages[0]))
    kept = kept_with(*messages)
    assert [
        (texts(found), following, whole) for found, following, whole in [kept.page(0, None), kept.page(2, None)]
    ] == [
        (["10 ", "11 "], 2, False),
        (["12 ", "13 "], 4, False),
    ]
    assert everything(kept) == [f"{number} " for number in range(10, 20)]


def test_one_message_larger_than_a_page_is_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_output, "PAGE", 10)
    kept = kept_with(frames(1, text="x" * 1000), frames(2))
    found, following, whole = kept.page(0, None)
    assert (len(found), following, whole) == (1, 1, False)


def test_what_follows_a_message() -> None:
    kept = kept_with(*map(frames, range(1, 6)))
    for number in range(1, 6):
        assert kept.after(f"message {number}") == number
    assert everything(kept, 3) == ["4 ", "5 "]
    assert everything(kept, kept.after("message 5") or 0) == []


@pytest.mark.parametrize("msg_id", ["message 1", "message", "", "message 33", 'message 3"', "\ud800", "\0"])
def test_a_message_that_is_not_kept_has_nothing_that_follows(msg_id: str) -> None:
    messages = [frames(number) for number in range(1, 6)]
    kept = kept_with(*messages, max_bytes=4 * size_of(messages[0]))
    assert kept.after(msg_id) is None


def test_an_id_in_the_text_of_a_message_is_not_its_own() -> None:
    assert kept_with(frames(1, text='"message 7"', cell="message 7")).after("message 7") is None


def test_of_one_cell_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [frames(number, cell="odd" if number % 2 else "even") for number in range(10, 30)]
    monkeypatch.setattr(kept_output, "PAGE", 3 * size_of(messages[0]))
    kept = kept_with(*messages)
    assert everything(kept, cell="odd") == [f"{number} " for number in range(11, 30, 2)]
    assert everything(kept, cell="od") == everything(kept, cell="") == []
    assert len(everything(kept)) == 20


FOREIGN: dict[str, list[Any]] = {
    "nothing": [],
    "no delimiter": [b"a", b"b"],
    "the delimiter alone": [DELIMITER],
    "too short": [b"stream", DELIMITER, b"", b"{}", b"{}"],
    "no JSON": [b"stream", DELIMITER, b"", b"{", b"{}", b"{}", b"{}"],
    "no UTF-8": [b"stream", DELIMITER, b"", b"\xff", b"{}", b"{}", b"{}"],
    "deep": [b"stream", DELIMITER, b"", b"{}", b"{}", b"{}", b"[" * 100_000],
    "many digits": [b"stream", DELIMITER, b"", b"{}", b"{}", b"{}", b"9" * 10_000],
    "memory": [memoryview(b"a"), bytearray(b"b")],
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_message_is_passed_over(foreign: list[Any]) -> None:
    kept = kept_with(frames(1), foreign, frames(2))
    assert everything(kept) == ["1 ", "2 "]
    assert everything(kept, cell="cell") == ["1 ", "2 "]
    assert (kept.after("message 1"), kept.after("message 2")) == (1, 3)
    assert kept.after("nobody's") is None


@given(
    sizes=st.lists(st.integers(0, 400), max_size=60),
    max_bytes=st.integers(0, 2000),
    start=st.integers(-5, 80),
)
def test_what_is_kept_is_bounded_has_no_holes_and_is_the_newest(sizes: list[int], max_bytes: int, start: int) -> None:
    messages = [frames(number, text=f"{number}:" + "x" * size) for number, size in enumerate(sizes)]
    kept = kept_with(*messages, max_bytes=max_bytes)
    assert kept.size == sum(map(size_of, messages[kept.first() :])) <= max_bytes
    assert kept.next == len(messages)
    shown = [int(text.partition(":")[0]) for text in everything(kept, start)]
    assert shown == list(range(max(start, kept.first()), len(messages)))


def test_threads_that_publish_while_another_reads() -> None:
    kept = KeptOutput(200 * size_of(frames(1000)))
    going, failures = threading.Event(), []

    def publish(cell: int) -> None:
        for number in range(1000, 2000):
            kept.add(frames(number, cell=f"cell {cell}"))

    def look() -> None:
        while not going.is_set():
            first = kept.first()
            found, following, _ = kept.page(0, None)
            if len(found) > 201 or following < first or kept.after("message 1") is not None:
                failures.append((len(found), following))
            for cell in range(4):
                shown = [int(text) for text in everything(kept, cell=f"cell {cell}")]
                if shown != sorted(set(shown)):
                    failures.append(shown)

    reader = threading.Thread(target=look)
    reader.start()
    publishers = [threading.Thread(target=publish, args=(cell,)) for cell in range(4)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    going.set()
    reader.join()
    assert not failures
    assert kept.next == 4000
