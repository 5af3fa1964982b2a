"""A tool's valves as settings: each is checked by itself, so that an error names the valve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..container_options import ContainerOptions
from ..errors import SettingsError
from ..settings import Settings


def docker_host(value: object) -> object:
    """The engine's address; ``unix://var/run/docker.sock`` is taken for what was meant."""
    text = str(value).strip()
    if text.startswith("unix://") and not text.startswith("unix:///"):
        text = f"unix:///{text.removeprefix('unix://')}"
    return text or None


def container(value: object) -> object:
    """The options in a YAML mapping, which may be empty."""
    return ContainerOptions.from_yaml(str(value)).model_dump(exclude_unset=True)


def whole(value: object) -> object:
    """A number of which 0 means no limit."""
    return value or None


SETTINGS: Final[Mapping[str, tuple[str, str, Callable[[object], object]]]] = {
    "CODE_INTERPRETER_TIMEOUT": ("limits", "timeout", lambda value: value),
    "DOCKER_SOCKET": ("", "docker_host", docker_host),
    "DOCKER_IMAGE": ("", "image", lambda value: str(value).strip() or None),
    "DOCKER_YAML_OPTIONS": ("", "container", container),
    "IDLE_SECONDS": ("limits", "idle_timeout", lambda value: value),
    "SESSIONS_PER_USER": ("limits", "sessions_per_owner", whole),
    "POOL_SIZE": ("pool", "size", lambda value: value),
    "OUTPUT_CHARS": ("limits", "text_chars", lambda value: value),
    "WORKSPACE_SIZE": ("limits", "workspace_bytes", lambda value: value or None),
}
"""For each valve: the section of the settings, the name in it, and what makes the setting's value of the valve's."""

NETWORK_OPTIONS: Final = ("network", "network_disabled")


def settings_from(valves: Mapping[str, object], **changes: object) -> Settings:
    """The settings that the valves say, over those of the environment and the settings file.

    ``changes``: sections that are merged over all of it.

    :raises SettingsError: a valve is wrong; the message begins with its name.
    """
    sections: dict[str, Any] = {}
    for valve, (section, name, convert) in SETTINGS.items():
        if valve not in valves:
            continue
        try:
            value = convert(valves[valve])
            one: dict[str, Any] = {section: {name: value}} if section else {name: value}
            Settings.load(env={}, **one)
        except SettingsError as error:
            raise SettingsError(f"The valve {valve} can't be used: {error}") from None
        if section:
            inside = sections.setdefault(section, {})
            if isinstance(inside, dict):
                inside[name] = value
        elif value is not None:
            sections[name] = value
    _take_network(valves, sections)
    for name, value in changes.items():
        known = sections.get(name)
        sections[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return Settings.load(**sections)


def _take_network(valves: Mapping[str, object], sections: dict[str, Any]) -> None:
    """What two valves say of the network, in place of what the options say of it; empty ones leave those.

    :raises SettingsError: together they can't be used.
    """
    network, hosts = (str(valves.get(name) or "").strip() for name in ("NETWORK", "ALLOWED_HOSTS"))
    if not (network or hosts):
        return
    inside = {name: value for name, value in sections.get("container", {}).items() if name not in NETWORK_OPTIONS}
    inside |= {"network": network or "allowlist"}
    if hosts:
        inside["allowed_hosts"] = hosts
    try:
        Settings.load(env={}, container=inside)
    except SettingsError as error:
        raise SettingsError(f"The valves NETWORK and ALLOWED_HOSTS can't be used: {error}") from None
    sections["container"] = inside
