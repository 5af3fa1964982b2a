"""Where the Docker daemon is, and what to tell people when it does not answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import docker
import requests
from docker.context import ContextAPI
from docker.errors import DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env, parse_host

from ..errors import EngineUnavailable

DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"
INSTALL = (
    "Start Docker, or install it: Docker Desktop or Docker Engine (https://docs.docker.com/engine/install/); "
    "on Debian and Ubuntu `docker-interpreter engine start`, as root, does both. An engine elsewhere is "
    "named with DOCKER_HOST or a docker context. Without any engine `--engine process` runs code directly on "
    "this machine, unprotected."
)


@dataclass(frozen=True, slots=True)
class DockerHost:
    """One daemon's address."""

    url: str
    source: str
    """Who named it, in words that can follow "named by"."""
    tls: TLSConfig | None = None


def find_docker_host(explicit: str | None = None) -> DockerHost:
    """The daemon to speak to, as the docker command finds it.

    That is ``explicit``, else DOCKER_HOST, else the current context, else the default socket. It is not asked
    anything yet.

    :raises EngineUnavailable: an address is malformed, or the context does not exist.
    """
    if explicit:
        return DockerHost(normalised(explicit, "the settings"), "the settings", environment_tls(explicit))
    if from_environment := os.environ.get("DOCKER_HOST"):
        url = normalised(from_environment, "DOCKER_HOST")
        return DockerHost(url, "DOCKER_HOST", environment_tls(url))
    return current_context()


def resolve_docker_host(explicit: str | None = None) -> str:
    """The address alone of :func:`find_docker_host`: ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host``.

    :raises EngineUnavailable: an address is malformed, or the context does not exist.
    """
    return find_docker_host(explicit).url


def connect(explicit: str | None = None, *, timeout: int = 60, max_pool_size: int = 10) -> docker.APIClient:
    """A client of the daemon that :func:`find_docker_host` names, which has answered once.

    ``timeout``: seconds of silence after which a call fails.

    :raises EngineUnavailable: nothing answers, or this user may not ask.
    """
    host = find_docker_host(explicit)
    try:
        knock(host.url, timeout)
        return docker.APIClient(
            host.url,
            version="auto",
            timeout=timeout,
            max_pool_size=max_pool_size,
            tls=host.tls or False,
            use_ssh_client=True,  # the ssh command knows the user's keys, agent and configuration
        )
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        raise unavailable(host.url, error) from error


def knock(url: str, timeout: float) -> None:
    """Open a connection to a socket and close it: docker-py would leave its own one open where that fails.

    :raises OSError: nothing listens there, or this user may not connect.
    """
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(url.removeprefix("unix://"))


def unavailable(url: str, error: BaseException) -> EngineUnavailable:
    """The error to raise where the daemon at ``url`` could not be asked: forbidden, not there, or silent."""
    if is_denied(error):
        return EngineUnavailable(
            f"The container engine at {url} runs, but this user may not use it.",
            "Join its group (`sudo usermod -aG docker $USER`, then log in again), or run rootless Docker.",
        )
    if any(isinstance(one, NameError) for one in chain(error)):  # how docker-py meets a transport that it can't import
        return EngineUnavailable(
            f"The container engine at {url} is reached by ssh, and a package for that is missing.",
            "Install it: `pip install 'docker-interpreter[ssh]'`.",
        )
    if any(isinstance(one, (FileNotFoundError, ConnectionRefusedError)) for one in chain(error)):
        return EngineUnavailable(f"No container engine answers at {url}.", INSTALL)
    return EngineUnavailable(f"No container engine answers at {url}: {last_words(error)}.", INSTALL)


def is_denied(error: BaseException) -> bool:
    """Whether an error says that a daemon is there, but not for this user."""
    return any(isinstance(one, PermissionError) for one in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it; requests and urllib3 hand causes on as arguments."""
    queue, seen = [error], set[int]()
    while queue:
        one = queue.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        queue += [cause for cause in (one.__cause__, one.__context__, *one.args) if isinstance(cause, BaseException)]


def last_words(error: BaseException) -> str:
    """The innermost cause, as short as it can be said."""
    *_, innermost = chain(error)
    return (str(innermost) or type(innermost).__name__)[:300].rstrip(".")


def normalised(url: str, source: str) -> str:
    """An address in one form, however it was written: ``unix://run/x`` and ``/run/x`` are ``unix:///run/x``."""
    url = url.strip()
    if url.startswith("/"):
        url = f"unix://{url}"
    if url.startswith("unix://"):
        path = url.removeprefix("unix://").lstrip("/")
        return f"unix:///{path}" if path else DEFAULT_DOCKER_HOST
    try:
        parse_host(url)
    except (DockerException, ValueError) as error:
        raise EngineUnavailable(
            f"{url!r}, the engine's address that {source} names, can't be used ({error}).",
            "It has the form unix:///var/run/docker.sock, tcp://host:2376 or ssh://user@host.",
        ) from error
    return url


def environment_tls(url: str) -> TLSConfig | None:
    """The certificates that DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, for an address reached over TCP."""
    if not url.startswith(("tcp://", "https://")):
        return None
    try:
        found = kwargs_from_env().get("tls")
    except DockerException as error:
        raise EngineUnavailable(
            f"The certificates for {url} can't be used: {error}.",
            "DOCKER_CERT_PATH names the folder that holds them.",
        ) from error
    return found if isinstance(found, TLSConfig) else None


def current_context() -> DockerHost:
    """The daemon of the docker command's context, which is the default socket where none was chosen."""
    name = os.environ.get("DOCKER_CONTEXT") or None
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # docker-py raises Exception itself for a context file that it can't read
        raise EngineUnavailable(
            f"The current docker context can't be read: {error}.", "`docker context ls` lists the contexts."
        ) from error
    if context is None or not context.Host:
        raise EngineUnavailable(
            f"The docker context {name or 'that is set as current'} does not exist.",
            "`docker context ls` lists them, `docker context use default` goes back to the local engine.",
        )
    if context.Name == "default":
        return DockerHost(DEFAULT_DOCKER_HOST, "the default")
    source = f"the docker context {context.Name!r}"
    return DockerHost(normalised(context.Host, source), source, context.TLSConfig)
