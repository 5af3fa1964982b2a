"""The turn to run cells, as the supervisor gives it."""

from __future__ import annotations

from .supervised import BUSY, INTERRUPTIBLE, SHORT, WAITING, Start, wait_until


def test_the_turn_goes_in_the_order_of_asking(start: Start) -> None:
    supervised = start(changes={"turns.TURN_SECONDS": 60})
    first, second, third, leaving = (supervised.client() for _ in range(4))
    first.request("acquire")
    first.request("acquire")
    asked_third = third.ask("acquire")
    first.event(event="turn wanted")
    leaving.ask("acquire")
    first.event(event="turn wanted")
    asked_second = second.ask("acquire")
    first.event(event="turn wanted")
    assert leaving.request("release") == {"id": 2}
    assert second.is_quiet(0.05)
    assert first.request("release") == {"id": 3}
    assert third.answer(asked_third) == {"id": 1}
    third.event(event="turn wanted")
    assert second.is_quiet(0.05)
    third.close()
    assert second.answer(asked_second) == {"id": 1}
    assert leaving.is_quiet(0.05)
    second.request("release")
    assert leaving.request("acquire") == {"id": 3}


def test_a_turn_that_nothing_runs_in_is_taken_away_when_another_waits(start: Start) -> None:
    supervised = start()
    client, other = supervised.attached(), supervised.client()
    client.request("acquire")
    supervised.record("B", msg_id="m")
    asked = other.ask("acquire")
    client.event(event="turn wanted")
    assert client.is_quiet(3 * SHORT)
    supervised.record("I", msg_id="m")
    client.event(event="turn lost")
    assert other.answer(asked) == {"id": asked}
    client.ask("acquire")
    other.event(event="turn wanted")


def test_a_cell_whose_client_is_gone_keeps_the_turn_from_others_until_it_has_ended(start: Start) -> None:
    supervised = start()
    client, other = supervised.client(), supervised.client()
    client.request("acquire")
    supervised.record("B", msg_id="m")
    client.close()
    asked = other.ask("acquire")
    assert other.is_quiet(2 * SHORT)
    assert other.request("status")["running"]["msg_id"] == "m"
    late = supervised.client()
    also = late.ask("acquire")
    supervised.record("I", msg_id="m")
    assert other.answer(asked) == {"id": asked}
    other.event(event="turn wanted")
    other.request("release")
    assert late.answer(also) == {"id": also}


def test_a_cell_that_nobody_ever_had_the_turn_for_keeps_it_too(start: Start) -> None:
    supervised = start(BUSY)
    client = supervised.attached()
    asked = client.ask("acquire")
    assert client.is_quiet(SHORT)
    client.request("restart")  # the cell goes with its kernel
    assert client.answer(asked) == {"id": asked}


def test_an_interrupt_of_a_cell_that_does_not_run_does_nothing(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + WAITING)
    client = supervised.attached()
    noted = supervised.workspace / "interrupted"
    nothing = {"interrupted": False}
    assert client.request("interrupt", cell="m") == {"id": client.last, **nothing}
    supervised.record("B", msg_id="m")
    for cell in ("another", None, ["m"], ""):
        assert client.request("interrupt", cell=cell) == {"id": client.last, **nothing}
    assert client.request("interrupt", cell="m") == {"id": client.last, "interrupted": True}
    wait_until(noted.exists)
    assert noted.read_text().split() == [str(supervised.pid())]
