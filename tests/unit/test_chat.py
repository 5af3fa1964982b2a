"""What a chat page's tool needs: valves, managers, the block that shows a cell as it runs, what the model reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from session_manager import Display, Error, Settings, SettingsError, Stream
from session_manager.chat.chip import LiveChip
from session_manager.chat.managers import MOST, chat_manager, close_all
from session_manager.chat.valves import settings_from
from session_manager.model_code import plain_code

# -- valves ---


def test_valves_become_settings() -> None:
    found = settings_from(
        {
            "CODE_INTERPRETER_TIMEOUT": 30,
            "DOCKER_SOCKET": "unix://var/run/docker.sock",
            "DOCKER_IMAGE": " example ",
            "DOCKER_YAML_OPTIONS": "mem_limit: 2g\nworking_dir: /mnt\n# volumes: []\n",
            "SESSIONS_PER_USER": 0,
            "WORKSPACE_SIZE": "1g",
            "ADDITIONAL_CONTEXT": "not a setting",
        }
    )
    assert (found.limits.timeout, found.docker_host, found.image) == (30, "unix:///var/run/docker.sock", "example")
    assert found.container.mem_limit == 2 << 30 and found.container.network_disabled
    assert found.limits.sessions_per_owner is None and found.limits.workspace_bytes == 1 << 30


def test_the_network_s_valves_count_before_the_options() -> None:
    options = {"DOCKER_YAML_OPTIONS": "network_disabled: true\nmem_limit: 2g"}
    found = settings_from({**options, "NETWORK": "", "ALLOWED_HOSTS": ""})
    assert found.container.network == "none"
    found = settings_from({**options, "NETWORK": "full"})
    assert (found.container.network, found.container.mem_limit) == ("full", 2 << 30)
    found = settings_from({**options, "ALLOWED_HOSTS": "pypi.org, files.pythonhosted.org"})
    assert found.container.network == "allowlist"
    assert set(found.container.allowed_hosts) == {"pypi.org", "files.pythonhosted.org"}
    for wrong in ({"NETWORK": "allowlist"}, {"NETWORK": "some"}, {"NETWORK": "none", "ALLOWED_HOSTS": "pypi.org"}):
        with pytest.raises(SettingsError, match="valves NETWORK and ALLOWED_HOSTS can't be used"):
            settings_from({**options, **wrong})


def test_empty_valves_are_the_defaults() -> None:
    found = settings_from({"DOCKER_IMAGE": "", "DOCKER_YAML_OPTIONS": "", "DOCKER_SOCKET": " "})
    assert (found.image, found.docker_host, found.container) == (None, None, Settings().container)


@pytest.mark.parametrize(
    ("valve", "value", "words"),
    [
        ("CODE_INTERPRETER_TIMEOUT", -1, "greater than 0"),
        ("DOCKER_YAML_OPTIONS", "mem_limit: [1", "line"),
        ("DOCKER_YAML_OPTIONS", "privileged: true", "privileged"),
        ("DOCKER_YAML_OPTIONS", "command: sh", "command"),
        ("DOCKER_YAML_OPTIONS", 'volumes: ["/:/host"]', "volumes"),
        ("DOCKER_IMAGE", "no image!", "image"),
        ("POOL_SIZE", -3, "pool"),
        ("WORKSPACE_SIZE", "a lot", "size"),
    ],
)
def test_a_wrong_valve_is_named(valve: str, value: object, words: str) -> None:
    with pytest.raises(SettingsError, match=f"The valve {valve} can't be used") as caught:
        settings_from({valve: value})
    assert words in str(caught.value)


# -- managers ---


async def test_who_has_the_same_settings_gets_the_same_manager(tmp_path: Path) -> None:
    def settings(number: int) -> Settings:
        return Settings(engine="process", state_dir=tmp_path, namespace=f"chat-{number}")

    async with chat_manager(settings(0)) as first, chat_manager(settings(0)) as again:
        assert first is again and first.users == 2
        async with chat_manager(settings(1)) as other:
            assert other is not first
    for number in range(1, MOST + 2):
        async with chat_manager(settings(number)):
            pass
    async with chat_manager(settings(0)) as later:
        assert later is not first, "the one unused for longest was let go of"
        await close_all()
    async with chat_manager(settings(0)) as anew:
        assert anew is not later
    await close_all()


# -- the block that shows a cell ---


class Shown:
    """What was sent to the page."""

    def __init__(self) -> None:
        self.states: list[Mapping[str, object]] = []

    async def __call__(self, state: Mapping[str, object]) -> None:
        self.states.append(state)


async def test_output_is_shown_as_it_comes_and_not_too_often() -> None:
    shown = Shown()
    async with LiveChip(shown, "code", interval=0.05) as chip:
        for number in range(1000):
            chip.on_output(Stream("stdout", f"\r{number}"))
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await chip.end()
    assert shown.states[0] == {}
    assert 2 <= len(shown.states) < 20, "a bar that moves a thousand times is not sent a thousand times"
    assert shown.states[-1] == {"output": "999"}


async def test_the_end_says_what_went_wrong_and_which_files_there_are() -> None:
    shown = Shown()
    async with LiveChip(shown, "1/0") as chip:
        chip.on_output(Display({"image/png": "aGVsbG8=", "text/plain": "<Figure>"}, {}))
        chip.on_output(Error("ZeroDivisionError", "division by zero", ()))
        await chip.end("ignored where there is an error", [{"name": "a.csv", "url": "/a"}])
    last = shown.states[-1]
    assert "ZeroDivisionError: division by zero" in str(last["error"])
    assert last["files"] == [{"name": "a.csv", "url": "/a"}] and "image/png" in str(last["output"])
    async with LiveChip(shown, "1") as chip:
        await chip.end("The cell was killed.")
    assert shown.states[-1] == {"error": "The cell was killed."}


async def test_output_without_end_stays_small() -> None:
    shown = Shown()
    async with LiveChip(shown, "code") as chip:
        for _ in range(200):
            chip.on_output(Stream("stdout", "x" * 99_999 + "\n"))
        await chip.end()
    assert len(json.dumps(shown.states[-1])) < 20_000


# -- code ---


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("    x = 1\n    y = 2", "x = 1\ny = 2"),
        ("\n\nif x:\n    y = 2\n", "if x:\n    y = 2"),
        ("```\n  x = 1\n```", "x = 1"),
    ],
)
def test_code_as_models_write_it(text: str, code: str) -> None:
    assert plain_code(text) == code
