"""The engine's network that containers are on, as the settings name it, looked at where the engine is known."""

from __future__ import annotations

import docker
from docker.errors import APIError, NotFound

from ..container_options import ContainerOptions
from ..errors import SettingsError


def check_network(api: docker.APIClient, options: ContainerOptions) -> None:
    """Look whether the network that the options name is one for sessions.

    :raises SettingsError: there is none of that name; or it is the host's own, by whichever name or id.
    """
    name = options.network_name
    if options.network != "full" or name == "bridge":
        return
    try:
        found = api.inspect_network(name)
    except NotFound:
        raise SettingsError(
            f"container.network_name: the engine has no network {name!r}.",
            f"`docker network ls` lists its networks; `docker network create {name}` makes one.",
        ) from None
    except APIError as error:
        raise SettingsError(
            f"container.network_name: the engine does not say what network {name!r} is: {error.explanation}.",
            "A proxy before its socket has to let GET /networks/NAME through.",
        ) from error
    # an id, or the beginning of one, finds the host's own network too
    if found["Name"] != name or found["Driver"] in ("host", "null"):
        raise SettingsError(
            f"container.network_name should be the name of a network of its own, not {name!r}, which is"
            f" {found['Name']!r} of the driver {found['Driver']!r}."
        )
