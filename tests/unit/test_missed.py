"""What was published while a program was away, put before what comes now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from session_manager import missed
from session_manager.missed import Message, Missed, as_message, message_id


def kept(name: object) -> dict[str, object]:
    """A message as the kernel gives it out afterwards."""
    return {"header": {"msg_id": name, "msg_type": "stream"}, "parent_header": {}, "metadata": {}, "content": {}}


def live(name: object) -> dict[str, object]:
    """The same as it comes by itself."""
    return {**kept(name), "msg_type": "stream", "buffers": []}


def page(*names: object, following: object = 0, whole: object = True, gap: object = False) -> dict[str, object]:
    return {"messages": [kept(name) for name in names], "next": following, "whole": whole, "gap": gap}


class Bench:
    """A collector, and a kernel that answers with pages in turn; ``asked`` is what it was asked."""

    def __init__(self, *pages: object) -> None:
        self.taken: list[Message] = []
        self.missed = Missed(self.taken.append)
        self.pages = list(pages)
        self.asked: list[dict[str, object]] = []
        self.during: dict[int, Sequence[Message]] = {}
        """What comes live while it works at its nth answer."""

    async def ask(self, fields: dict[str, object]) -> Any:
        self.asked.append(fields)
        await asyncio.sleep(0)
        for message in self.during.get(len(self.asked), ()):
            self.missed.on_message(message, 1)
        answer = self.pages.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def come(self, *names: object) -> None:
        for name in names:
            self.missed.on_message(live(name), 1)

    async def fetch(self, *, cell: str | None = None) -> bool:
        async with asyncio.timeout(20):
            return await self.missed.fetch(self.ask, cell=cell)

    @property
    def names(self) -> list[object]:
        return [message["header"].get("msg_id") for message in self.taken]  # type: ignore[attr-defined]


def test_what_comes_is_passed_on_at_once() -> None:
    bench = Bench()
    bench.come("a", "b", "a")
    assert bench.names == ["a", "b", "a"]


async def test_what_was_missed_comes_before_what_comes_now() -> None:
    bench = Bench(page("c", "d", following=4))
    bench.come("a", "b")
    bench.missed.hold()
    bench.come("e")
    assert bench.names == ["a", "b"]
    bench.during[1] = [live("f")]
    assert await bench.fetch() is True
    assert bench.names == list("abcdef")
    assert bench.asked == [{"after_message": "b"}]
    bench.come("g")
    assert bench.names == list("abcdefg")


async def test_pages_follow_each_other() -> None:
    bench = Bench(page("b", following=2, whole=False), page(following=3, whole=False), page("c", following=9))
    bench.come("a")
    assert await bench.fetch() is True
    assert bench.names == list("abc")
    assert bench.asked == [{"after_message": "a"}, {"cell": None, "start": 2}, {"cell": None, "start": 3}]


async def test_who_has_heard_nothing_asks_for_all() -> None:
    bench = Bench(page("a"))
    assert await bench.fetch() is True
    assert bench.asked == [{"cell": None, "start": 0}]


async def test_what_is_among_the_kept_and_held_comes_once() -> None:
    bench = Bench(page("b", "c", following=3, whole=False), page("d"))
    bench.come("a")
    bench.missed.hold()
    bench.come("c")
    bench.during = {2: [live("d"), live("e")]}
    assert await bench.fetch() is True
    assert bench.names == list("abcde")


async def test_what_was_fetched_and_comes_live_only_afterwards_comes_once() -> None:
    bench = Bench(page("b", "c"), page("e"))
    bench.come("a")
    await bench.fetch()
    bench.come("b", "c", "d")
    assert bench.names == list("abcd")
    bench.missed.hold()
    bench.come("c")
    bench.missed.release()
    await bench.fetch()
    assert bench.names == list("abcde")
    assert bench.asked[-1] == {"after_message": "d"}


async def test_what_was_fetched_of_a_cell_is_not_fetched_again_with_all() -> None:
    bench = Bench(page("b", "c"), page("b", "c", "d"), page("b", "c", "d"))
    bench.come("a")
    assert await bench.fetch(cell="cell") is True
    bench.come("b", "c")
    assert await bench.fetch() is True
    assert bench.names == list("abcd")
    assert bench.asked == [{"cell": "cell", "start": 0}, {"after_message": "a"}]
    await bench.fetch(cell="cell")  # whoever takes the cell over once more gets all of it
    assert bench.names == [*"abcd", *"bcd"]


@pytest.mark.parametrize("gap", [True, None, 0, "no"])
async def test_a_gap_in_any_page_is_told(gap: object) -> None:
    bench = Bench(page("a", following=1, whole=False), page("b", following=2, whole=False, gap=gap), page("c"))
    assert await bench.fetch() is False
    assert bench.names == list("abc")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"status": "error", "ename": "NameError"},
        {"messages": None, "next": 1, "gap": False},
        {"messages": {}, "next": 1, "gap": False},
        {"messages": "abc", "next": 1, "gap": False},
        {"messages": [], "next": None, "gap": False},
        {"messages": [], "next": "1", "gap": False},
        {"messages": [], "next": 1.5, "gap": False},
    ],
)
async def test_a_page_that_is_none_ends_it(answer: Message) -> None:
    bench = Bench(page("a", whole=False, following=1), answer, page("never"))
    bench.missed.hold()
    bench.come("z")
    assert await bench.fetch() is False
    assert bench.names == ["a", "z"]


async def test_malformed_messages_in_a_page_are_left_out() -> None:
    strange = [None, 3, "text", [], {}, {"header": None}, {"header": []}, {"header": "x"}]
    odd_ids = [kept(None), kept(["b"]), kept({}), kept("x" * 1000)]
    answer = {**page(), "messages": [kept("a"), *strange, *odd_ids, kept("b")]}
    bench = Bench(answer, page())
    bench.missed.hold()
    bench.come(None, "b", "c")
    assert await bench.fetch() is True
    assert bench.names == ["a", None, ["b"], {}, "x" * 1000, "b", None, "c"]
    await bench.fetch()
    assert bench.asked[-1] == {"after_message": "c"}


async def test_pages_that_never_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "MOST_PAGES", 5)
    bench = Bench(*(page("a", whole=False) for _ in range(9)))
    assert await bench.fetch() is False
    assert len(bench.asked) == 5


async def test_what_is_remembered_of_pages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "MOST_FETCHED", 3)
    bench = Bench(page(*"abcdef"))
    await bench.fetch()
    bench.come(*"abcdef")
    assert bench.names == [*"abcdef", *"abc"]
    assert len(bench.missed._fetched) == 3


@pytest.mark.parametrize("failure", [RuntimeError("no answer"), TimeoutError(), asyncio.CancelledError()])
async def test_what_was_held_comes_even_where_fetching_fails(failure: BaseException) -> None:
    bench = Bench(page("b", whole=False, following=1), failure)
    bench.come("a")
    bench.missed.hold()
    bench.come("b", "c")
    with pytest.raises(type(failure)):
        await bench.missed.fetch(bench.ask)
    assert bench.names == list("abc")
    bench.come("d")
    assert bench.names == list("abcd")


async def test_what_was_held_comes_where_fetching_is_cancelled() -> None:
    bench = Bench()
    bench.missed.hold()
    bench.come("a")
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def ask(_fields: dict[str, object]) -> Message:
        return await never

    fetching = asyncio.create_task(bench.missed.fetch(ask))
    await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert bench.names == ["a"]
    await bench.missed.room()


def test_released_without_asking() -> None:
    bench = Bench()
    bench.missed.hold()
    bench.come("a")
    bench.missed.hold()
    bench.come("b")
    bench.missed.release()
    bench.missed.release()
    bench.come("c")
    assert bench.names == list("abc")


@pytest.mark.parametrize(("bound", "messages"), [("MOST_HELD", 3), ("MOST_HELD_BYTES", 2)])
async def test_who_reads_waits_while_too_much_is_held(
    monkeypatch: pytest.MonkeyPatch, bound: str, messages: int
) -> None:
    monkeypatch.setattr(missed, bound, 3 if bound == "MOST_HELD" else 20)
    bench = Bench(page("c"))
    bench.missed.hold()
    for number in range(messages):
        await asyncio.wait_for(bench.missed.room(), 30)
        bench.missed.on_message(live(number), 10)
    waiting = asyncio.create_task(bench.missed.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await bench.fetch()
    await asyncio.wait_for(waiting, 30)
    assert bench.names == ["c", *range(messages)]
    # what was held does not count any more
    bench.missed.hold()
    bench.missed.on_message(live("z"), 10)
    await asyncio.wait_for(bench.missed.room(), 30)


async def test_one_that_takes_what_comes_and_fails_does_not_keep_the_rest_held() -> None:
    taken: list[object] = []

    def take(message: Message) -> None:
        taken.append(message_id(message))
        if taken[-1] == "a":
            raise ValueError("no")

    collector = Missed(take)
    collector.hold()
    collector.on_message(live("a"), 1)
    with pytest.raises(ValueError, match="no"):
        collector.release()
    collector.on_message(live("b"), 1)
    assert taken == ["a", "b"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["header", "msg_id", "x"]), inner),
    max_leaves=6,
)
some_page = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(anything, max_size=4) | anything,
        "next": st.integers(0, 9) | anything,
        "whole": st.booleans() | anything,
        "gap": anything,
    },
)


@given(st.lists(some_page, max_size=4))
@example([{"messages": [{"header": {}}], "next": 0}])
async def test_hostile_pages_are_survived(pages: list[Message]) -> None:
    bench = Bench(*pages, page())
    bench.missed.hold()
    bench.come("held")
    assert await bench.fetch() in (True, False)
    assert all(as_message(message) is not None for message in bench.taken)
    bench.come("on")
    assert "on" in bench.names
