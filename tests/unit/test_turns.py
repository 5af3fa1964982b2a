"""The queue for the turn to run cells, by itself."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_image import turns
from kernel_image.turns import LOOK_SECONDS, TURN_SECONDS, Turns

GRANTED = "granted"


class Client:
    """Somebody who asks for turns; ``got`` is what it was told, in order."""

    def __init__(self) -> None:
        self.waiting: object = None
        self.waiting_since = 0.0
        self.got: list[object] = []


class Kernel:
    """What runs, and what the time is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy = False
        self.now = 1000.0
        self.gone: set[Client] = set()
        self.turns = Turns(lambda: self.busy, self.send)
        monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: self.now))

    def send(self, client: Client, message: dict[str, Any]) -> None:
        """As the supervisor does it: who can't be sent to is dropped at once."""
        if client in self.gone:
            self.turns.release(client)
        else:
            client.got.append(message.get("event") or (GRANTED, message["id"]))

    def asks(self, client: Client, request: int = 1) -> bool:
        """Whether it gets the turn at once."""
        return self.turns.acquire(client, request) == {}

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.turns.tick()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def clients(number: int) -> list[Client]:
    return [Client() for _ in range(number)]


def test_who_asks_first_has_it_and_the_others_wait_in_order(kernel: Kernel) -> None:
    first, second, third = clients(3)
    assert kernel.asks(first)
    assert not kernel.asks(second, 2)
    assert not kernel.asks(third, 3)
    assert kernel.asks(first)
    kernel.turns.release(first)
    assert kernel.turns.holder is second
    kernel.turns.release(second)
    assert kernel.turns.holder is third
    kernel.turns.release(third)
    assert kernel.turns.holder is None
    assert first.got == ["turn wanted"] * 2
    assert second.got == [(GRANTED, 2), "turn wanted"]
    assert third.got == [(GRANTED, 3)]
    assert [client.waiting for client in (first, second, third)] == [None] * 3


def test_asking_again_keeps_the_place_and_answers_the_later_request(kernel: Kernel) -> None:
    first, second, third = clients(3)
    kernel.asks(first)
    kernel.asks(second, 2)
    since = second.waiting_since
    kernel.passes(1)
    kernel.asks(third, 3)
    kernel.asks(second, 4)
    assert second.waiting_since == since
    kernel.turns.release(first)
    assert second.got == [(GRANTED, 4), "turn wanted"]
    assert third.got == []


def test_a_wait_that_is_given_up_leaves_the_queue(kernel: Kernel) -> None:
    first, second, third = clients(3)
    kernel.asks(first)
    kernel.asks(second)
    kernel.asks(third)
    kernel.turns.release(second)
    assert second.waiting is None
    kernel.turns.release(first)
    assert kernel.turns.holder is third
    assert second.got == []
    kernel.turns.release(second)
    assert kernel.turns.holder is third


def test_giving_back_what_one_does_not_have_changes_nothing(kernel: Kernel) -> None:
    first, stranger = clients(2)
    kernel.turns.release(stranger)
    kernel.asks(first)
    kernel.turns.release(stranger)
    assert kernel.turns.holder is first


def test_nobody_gets_it_while_a_cell_runs_that_nobody_holds_it_for(kernel: Kernel) -> None:
    first, second = clients(2)
    kernel.busy = True
    assert not kernel.asks(first)
    assert not kernel.asks(second)
    assert kernel.turns.pause() == LOOK_SECONDS
    kernel.passes(1000)
    assert first.got == second.got == []
    kernel.busy = False
    kernel.passes(0)
    assert first.got == [(GRANTED, 1), "turn wanted"]
    assert second.got == []


def test_a_holder_that_goes_while_its_cell_runs_leaves_it_to_nobody_yet(kernel: Kernel) -> None:
    first, second = clients(2)
    kernel.asks(first)
    kernel.busy = True
    kernel.asks(second)
    kernel.turns.release(first)
    assert (kernel.turns.holder, second.got) == (None, [])
    assert kernel.turns.pause() == LOOK_SECONDS
    kernel.busy = False
    kernel.passes(0)
    assert (kernel.turns.holder, second.got) == (second, [(GRANTED, 1)])
    assert kernel.turns.pause() == float("inf")


def test_who_comes_as_the_queue_waits_does_not_overtake_it(kernel: Kernel) -> None:
    first, second = clients(2)
    kernel.busy = True
    kernel.asks(first)
    kernel.busy = False
    assert not kernel.asks(second)
    kernel.passes(0)
    assert kernel.turns.holder is first


def test_a_holder_that_runs_nothing_loses_it_when_another_has_waited(kernel: Kernel) -> None:
    first, second, third = clients(3)
    kernel.asks(first)
    kernel.passes(1000)
    kernel.asks(second)
    kernel.passes(TURN_SECONDS)
    assert first.got == ["turn wanted"]
    assert kernel.turns.pause() == TURN_SECONDS
    kernel.passes(0.1)
    assert first.got == ["turn wanted", "turn lost"]
    assert second.got == [(GRANTED, 1)]
    kernel.passes(1000)
    assert second.got == [(GRANTED, 1)]
    kernel.asks(third)
    kernel.passes(TURN_SECONDS + 0.1)
    assert second.got[1:] == ["turn wanted", "turn lost"]
    assert third.got == [(GRANTED, 1)]


def test_a_holder_whose_cell_runs_keeps_it(kernel: Kernel) -> None:
    first, second = clients(2)
    kernel.asks(first)
    kernel.busy = True
    kernel.asks(second)
    kernel.passes(1000)
    assert kernel.turns.holder is first
    kernel.busy = False
    kernel.passes(0)
    assert first.got == ["turn wanted", "turn lost"]
    assert kernel.turns.holder is second


def test_whoever_can_t_be_told_is_passed_over(kernel: Kernel) -> None:
    first, second, third, fourth = clients(4)
    kernel.asks(first)
    for client in (second, third, fourth):
        kernel.asks(client)
    kernel.gone = {second, third}
    kernel.turns.release(first)
    assert kernel.turns.holder is fourth
    assert fourth.got == [(GRANTED, 1)]


@pytest.mark.parametrize("moment", ["it is wanted", "it is taken away"])
def test_a_holder_that_can_t_be_told_loses_it(kernel: Kernel, moment: str) -> None:
    first, second = clients(2)
    kernel.asks(first)
    if moment == "it is taken away":
        kernel.asks(second)
    kernel.gone = {first}
    if moment == "it is wanted":
        assert not kernel.asks(second)  # it hears of it in the same way as of any other turn
    kernel.passes(TURN_SECONDS + 0.1)
    assert kernel.turns.holder is second
    assert second.got == [(GRANTED, 1)]


def test_a_queue_that_empties_leaves_nothing_to_look_at(kernel: Kernel) -> None:
    first, second = clients(2)
    pause: Callable[[], float] = kernel.turns.pause
    assert pause() == float("inf")
    kernel.asks(first)
    kernel.asks(second)
    assert pause() == TURN_SECONDS
    kernel.turns.release(first)
    kernel.turns.release(second)
    assert pause() == float("inf")
