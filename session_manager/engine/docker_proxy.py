"""How a session without a network reaches listed hosts all the same: two containers beside its own.

::

    the session ── 127.0.0.1:3128 ──► the gate ── a Unix socket ──► the proxy ──► the engine's bridge ──► listed hosts
    no network                        socat, in the               squid
                                      session's network

The session's container has no network, as any other: a loopback interface that is its own, no route, no DNS server, no
neighbours. The gate shares that interface and nothing else of the world; the proxy shares nothing with the session. An
internal network of Docker's would be less: its bridge belongs to the host, whose ports answer on it, and where the
bridge has no address code in a container still gets datagrams to all others of the host's (SO_DONTROUTE).

Both end with the session, also where no manager lives: the gate is in its process namespace, so that the operating
system ends it with the session's first process, and the proxy ends when the gate does.

Blocking functions on docker-py's client, for the engine to run in its threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import docker
from docker.errors import APIError, NotFound

from ..container_options import ContainerOptions
from ..errors import EngineError, VolumeInUse
from . import docker_volumes
from .base import LABEL_BESIDE, LABEL_SESSION, ContainerSpec
from .hardening import hardened, name_resolution
from .squid import PORT, READY, configuration

LABELS = {LABEL_BESIDE: "2"}
"""Of a session's container that has these beside it."""
USER_ID = 13
"""Debian's user ``proxy``: another than the session's, whose code can do nothing to its processes."""
USER = f"{USER_ID}:{USER_ID}"
WAY = "/run/way"
"""The directory with the sockets between gate and proxy."""
CONNECTIONS = 128
"""At once; more wait."""
READY_SECONDS = 20.0
REMOVE_SECONDS = 20.0

_SOCAT = "socat -t30 -T3600"
_MANY = f"backlog={CONNECTIONS},fork,max-children={CONNECTIONS}"
GATE = f"""
socat -u UNIX-LISTEN:{WAY}/alive,fork,unlink-early OPEN:/dev/null &
exec {_SOCAT} TCP4-LISTEN:{PORT},bind=127.0.0.1,reuseaddr,{_MANY} UNIX-CONNECT:{WAY}/proxy
"""
PROXY = f"""
printf '%s' "$1" > /run/squid/squid.conf
{_SOCAT} UNIX-LISTEN:{WAY}/proxy,unlink-early,{_MANY} TCP4:127.0.0.1:{PORT} &
squid --foreground -d1 -f /run/squid/squid.conf &
exec socat -u UNIX-CONNECT:{WAY}/alive,retry=200,interval=0.1 OPEN:/dev/null
"""


def start(api: docker.APIClient, spec: ContainerSpec, session: str, image: str) -> None:
    """Start gate and proxy of a session's container that runs, called by its id.

    :raises APIError: the daemon refuses; the session may have ended.
    :raises EngineError: the proxy does not work.
    """
    labels = {**spec.beside, LABEL_SESSION: session}
    name = f"{spec.name}-proxy-{session[:12]}"
    mount = docker.types.Mount(WAY, name, type="volume", labels=labels)
    proxy = _start(api, image, name, labels, mount, [PROXY, "proxy", configuration(spec.options)], {
        "network_mode": "bridge",
        **name_resolution(spec.options),
    })  # fmt: skip
    _start(api, image, f"{spec.name}-gate-{session[:12]}", labels, mount, [GATE], {
        "network_mode": f"container:{session}",
        "pid_mode": f"container:{session}",
    })  # fmt: skip
    _wait_until_ready(api, proxy)


def _start(
    api: docker.APIClient,
    image: str,
    name: str,
    labels: Mapping[str, str],
    mount: docker.types.Mount,
    script: list[str],
    host: Mapping[str, object],
) -> str:
    limits = ContainerOptions(mem_limit=128 << 20, pids_limit=3 * CONNECTIONS)
    own = f"uid={USER_ID},gid={USER_ID}"
    configured: dict[str, Any] = {
        **hardened(limits, [mount]),
        "tmpfs": {"/run/squid": f"rw,nosuid,nodev,noexec,size=1m,mode=0700,{own}"},
        **host,
    }
    container = api.create_container(
        image,
        name=name,
        entrypoint=["/bin/sh", "-euc"],
        command=script,
        user=USER,
        working_dir="/",
        labels=dict(labels),
        stdin_open=False,
        host_config=api.create_host_config(**configured),
    )
    api.start(container["Id"])
    return str(container["Id"])


def _wait_until_ready(api: docker.APIClient, proxy: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    said = b""
    while time.monotonic() < deadline:
        try:
            said = bytes(api.logs(proxy))
        except (NotFound, APIError):
            break  # it has ended, and took its log with it
        if READY in said:
            return
        if b"FATAL" in said:
            break
        time.sleep(0.05)
    words = said.decode(errors="replace").strip()[-500:]
    raise EngineError(f"The proxy for a session's network does not start. {words}".strip())


def remove(api: docker.APIClient, labels: Mapping[str, str], session: str) -> None:
    """Remove what :func:`start` made for a container that is gone, called by its id, whose labels were these.

    What ends by itself just now is waited for.
    """
    if LABEL_BESIDE not in labels:
        return
    wanted = {"label": [f"{LABEL_SESSION}={session}"]}
    deadline = time.monotonic() + REMOVE_SECONDS
    while found := api.containers(all=True, filters=wanted):
        for container in found:
            with contextlib.suppress(NotFound):
                try:
                    api.remove_container(container["Id"], force=True)
                except APIError as error:
                    # 409: the daemon is removing it already
                    if error.status_code != 409 or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
    for volume in api.volumes(filters=wanted)["Volumes"] or ():
        with contextlib.suppress(VolumeInUse):  # the next sweep gets it
            docker_volumes.remove_volume(api, volume["Name"])
