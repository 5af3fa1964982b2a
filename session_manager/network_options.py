"""The options that say what sessions may reach: ``network``, ``allowed_hosts``, ``private_networks``, ``extra_hosts``
and ``dns``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sized
from typing import Literal, NamedTuple

Network = Literal["none", "full", "allowlist"]
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS = (80, 443)
MOST = 200
"""Entries in each of the lists."""
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_TOP = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"  # no address ends like this, in whatever notation
_NAME = re.compile(rf"(?:{_LABEL}\.)+{_TOP}", re.ASCII)
_SYNTAX = 'each should look like "pypi.org", "*.example.org" or "example.org:8443": a name, without https:// or a path'

# What the internet's registries keep for machines and sites of their own: no name on the internet should lead there.
NEVER_PUBLIC = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    "224.0.0.0/3",
    *("::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16"),
    *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
)
"""Networks that a listed name leads to only where ``private_networks`` names them."""
_NEVER = tuple(
    ipaddress.ip_network(one)
    for one in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/128", "::1/128", "64:ff9b::/96", "fe80::/10", "ff00::/8"),
        "fd00:ec2::254/128",  # where a cloud answers with the machine's own credentials
    )
)


class AllowedHost(NamedTuple):
    """A host, or all below one, and the ports on it."""

    name: str
    below: bool
    """Whether all names below it are meant, and not the name itself."""
    ports: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """What ``"*.example.org:8443"`` says; without a port, 80 and 443 are meant.

        Raises ValueError for anything else, addresses included: what a name is good for can be told from the name.
        """
        host, colon, port = text.strip().lower().partition(":")
        if colon and not (re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) and 1 <= int(port) <= 65535):
            raise ValueError(f"should not hold {text!r:.80}: {_SYNTAX}")
        below, name = host.startswith("*."), host.removeprefix("*.")
        if not name.isascii():
            raise ValueError(f"should write {name!r:.60} as DNS does, beginning with xn--")
        if len(name) > 253 or not _NAME.fullmatch(name):
            raise ValueError(f"should not hold {text!r:.80}: {_SYNTAX}")
        return cls(name, below, (int(port),) if colon else DEFAULT_PORTS)

    def __str__(self) -> str:
        port = "" if self.ports == DEFAULT_PORTS else f":{self.ports[0]}"
        return f"{'*.' if self.below else ''}{self.name}{port}"


def _texts(value: object, example: str) -> list[str]:
    if isinstance(value, str):  # as an environment variable has it
        value = [one for one in re.split(r"[\s,]+", value) if one]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ValueError(f"should be a list, such as {example}")
    texts = list(value)
    if not all(isinstance(one, str) for one in texts):
        raise ValueError(f"should be a list of texts, such as {example}")
    if len(texts) > MOST:
        raise ValueError(f"should have no more than {MOST} entries")
    return texts


def read_allowed_hosts(value: object) -> object:
    """The option as texts that :meth:`AllowedHost.parse` reads, each once, in one order. Raises ValueError."""
    found = [AllowedHost.parse(one) for one in _texts(value, '["pypi.org", "files.pythonhosted.org"]')]
    return tuple(str(host) for host in sorted(set(found)))


def read_networks(value: object) -> object:
    """The option as texts in the usual notation. Raises ValueError for what no name should ever lead to."""
    found = set()
    for text in _texts(value, '["10.1.2.0/24"]'):
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            raise ValueError(f'should name networks such as "10.1.2.0/24", not {text!r:.60}') from None
        if any(network.version == other.version and network.overlaps(other) for other in _NEVER):
            raise ValueError(f"should not name {network}: it holds machines' own addresses, or a cloud's metadata")
        found.add(network)
    return tuple(sorted(map(str, found)))


def read_extra_hosts(value: object) -> object:
    """The option as docker-py takes it: a mapping of names to addresses. Raises ValueError."""
    if not isinstance(value, Mapping) or len(value) > MOST:
        raise ValueError(f'should be a mapping of at most {MOST} names, such as {{"pypi.example.org": "10.1.2.3"}}')
    found: dict[str, str] = {}
    for name, address in value.items():
        host = str(name).lower()
        if len(host) > 253 or not re.fullmatch(rf"(?:{_LABEL}\.)*{_TOP}", host, re.ASCII):
            raise ValueError(f"should not name {name!r:.60}, which is no host name")
        try:
            found[host] = str(ipaddress.ip_address(str(address)))
        except ValueError:
            raise ValueError(f"should give {host} an IP address, not {address!r:.60}") from None
    return dict(sorted(found.items()))


def read_addresses(value: object) -> object:
    """The option ``dns``: IP addresses. Raises ValueError."""
    found = []
    for text in _texts(value, '["10.1.2.3"]'):
        try:
            found.append(str(ipaddress.ip_address(text)))
        except ValueError:
            raise ValueError(f"should hold IP addresses alone, not {text!r:.60}") from None
    return tuple(found)


def decide_network(network: Network, network_disabled: bool, given: Collection[str], hosts_are_named: bool) -> Network:
    """The network that both words for it mean together; ``given`` are the names of the options that were set.

    Raises ValueError where they contradict each other.
    """
    if "network" not in given and "network_disabled" in given:
        network = "none" if network_disabled else "allowlist" if hosts_are_named else "full"
    elif "network_disabled" in given and network_disabled != (network == "none"):
        raise ValueError(
            f"network: {network} and network_disabled: {str(network_disabled).lower()} contradict each other:"
            " leave network_disabled away"
        )
    if network == "allowlist" and not hosts_are_named:
        raise ValueError('network: allowlist needs allowed_hosts, such as ["pypi.org", "files.pythonhosted.org"]')
    return network


def refuse_meaningless(network: Network, *, allowlist: Mapping[str, Sized], network_only: Mapping[str, Sized]) -> None:
    """Raises ValueError for an option that the network makes nothing of: its author expects something else."""
    for name, value in allowlist.items():
        if value and network != "allowlist":
            raise ValueError(f"{name} has a meaning with network: allowlist alone, and the network is {network}")
    for name, value in network_only.items():
        if value and network == "none":
            raise ValueError(f"{name} has no meaning without a network: set network: allowlist, or full")


def refused_networks(permitted: Iterable[str]) -> list[str]:
    """The networks of :data:`NEVER_PUBLIC` without what is ``permitted`` of them."""
    allowed = [ipaddress.ip_network(one) for one in permitted]
    refused = []
    for text in NEVER_PUBLIC:
        left: list[IPNetwork] = [ipaddress.ip_network(text)]
        for network in allowed:
            left = [piece for one in left for piece in _without(one, network)]
        refused += [str(one) for one in left]
    return refused


def _without(whole: IPNetwork, part: IPNetwork) -> list[IPNetwork]:
    if isinstance(whole, ipaddress.IPv4Network) and isinstance(part, ipaddress.IPv4Network):
        if whole.overlaps(part):
            return [] if whole.subnet_of(part) else list(whole.address_exclude(part))
    elif isinstance(whole, ipaddress.IPv6Network) and isinstance(part, ipaddress.IPv6Network) and whole.overlaps(part):
        return [] if whole.subnet_of(part) else list(whole.address_exclude(part))
    return [whole]
