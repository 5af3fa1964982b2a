"""What sessions may reach: how it is written, what contradicts itself, and what squid is told."""

from __future__ import annotations

import ipaddress
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager import ContainerOptions, Settings, SettingsError
from session_manager.engine.hardening import environment, hardened
from session_manager.engine.squid import configuration
from session_manager.network_options import AllowedHost, refused_networks
from session_manager.settings import settings_hash

LISTED: dict[str, Any] = {"network": "allowlist", "allowed_hosts": ["pypi.org", "*.example.org", "example.org:8443"]}


def refusal(**options: object) -> str:
    """What is said against these options of containers."""
    with pytest.raises(SettingsError) as caught:
        Settings(container=options)  # type: ignore[arg-type]
    return caught.value.message


def test_there_is_no_network_unless_somebody_wants_it(caplog: pytest.LogCaptureFixture) -> None:
    options = ContainerOptions()
    assert options.network == "none" and options.network_disabled
    assert hardened(options, [])["network_mode"] == "none"
    assert not [name for name in environment(options) if "PROXY" in name.upper() or "PIP" in name]
    assert caplog.records == []


def test_the_whole_network_is_there_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "session_manager"):
        options = ContainerOptions(network="full")
    assert hardened(options, [])["network_mode"] == "bridge"
    assert "bridge network" in caplog.text
    with caplog.at_level(logging.WARNING, "session_manager"):
        options = ContainerOptions(network="full", network_name="analysis")
    assert hardened(options, [])["network_mode"] == "analysis"
    assert "analysis network" in caplog.text


def test_a_container_with_an_allowlist_has_no_network_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    options = ContainerOptions(**LISTED)
    assert hardened(options, [])["network_mode"] == "none"
    variables = environment(options)
    assert variables["HTTPS_PROXY"] == variables["http_proxy"] == "http://127.0.0.1:3128"
    assert "127.0.0.1" in variables["NO_PROXY"]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("network_disabled: true", "none"),
        ("network_disabled: false", "full"),
        ("network_disabled: false\nallowed_hosts: [pypi.org]", "allowlist"),
        ("network: full\nnetwork_disabled: false", "full"),
        ("network: none\nnetwork_disabled: true", "none"),
    ],
)
def test_docker_pys_word_for_it_is_understood(text: str, network: str) -> None:
    options = ContainerOptions.from_yaml(text)
    assert (options.network, options.network_disabled) == (network, network == "none")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": "none", "network_disabled": False}, "network: none and network_disabled: false contradict"),
        ({"network": "full", "network_disabled": True}, "network: full and network_disabled: true contradict"),
        ({**LISTED, "network_disabled": True}, "network: allowlist and network_disabled: true contradict"),
        ({"network": "allowlist"}, "network: allowlist needs allowed_hosts"),
        ({"allowed_hosts": ["pypi.org"]}, "allowed_hosts has a meaning with network: allowlist alone"),
        ({"network": "full", "allowed_hosts": ["pypi.org"]}, "allowed_hosts has a meaning with network: allowlist"),
        ({"network": "full", "private_networks": ["10.0.0.0/8"]}, "private_networks has a meaning with"),
        ({"extra_hosts": {"a.test": "10.0.0.1"}}, "extra_hosts has no meaning without a network"),
        ({"dns": ["10.0.0.1"]}, "dns has no meaning without a network"),
        ({**LISTED, "runtime": "runsc"}, "network: allowlist and runtime: runsc exclude each other"),
        ({"network_name": "analysis"}, "network_name has a meaning with network: full alone, and the network is none"),
        ({**LISTED, "network_name": "analysis"}, "network_name has a meaning with network: full alone"),
        *(
            ({"network": "full", "network_name": name}, "network_name ")
            for name in ("host", "none", "default", "container:other", "", "-v", "a/b", "bridge\n", "a" * 129)
        ),
        ({"network": "open"}, "network is 'open', but should be 'none', 'full' or 'allowlist'"),
        ({"network": False}, "network is False, but should not be true or false"),
    ],
)
def test_what_contradicts_itself_is_refused_in_a_sentence(options: dict[str, object], words: str) -> None:
    assert words in refusal(**options)


def test_names_are_kept_as_they_are_meant() -> None:
    hosts = ["PyPI.org", "pypi.org:443", " *.Example.org", "example.org:8443", "pypi.org"]
    options = ContainerOptions(network="allowlist", allowed_hosts=hosts)
    assert options.allowed_hosts == ("example.org:8443", "*.example.org", "pypi.org", "pypi.org:443")
    assert AllowedHost.parse("*.example.org") == ("example.org", True, (80, 443))
    assert AllowedHost.parse("example.org:8443") == ("example.org", False, (8443,))


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "*.org", "org", "localhost", "https://pypi.org", "pypi.org/simple", "user@pypi.org", "pypi..org"),
        *("1.2.3.4", "0x7f.1", "127.1", "::1", "[::1]:80", "2130706433", "pypi.org:0", "pypi.org:65536", "pypi.org:"),
        *("pypi.org:443:1", "-a.org", "a-.org", "a.*.org", "*.*.org", "*pypi.org", "pypi.org.", ".pypi.org", "a b.org"),
        *("pypi.org\nhttp_access allow all", "a" * 64 + ".org", "a." * 127 + "org", "bücher.example", "pypi.org#x"),
    ],
)
def test_what_is_no_name_of_a_host_is_refused(text: str) -> None:
    message = refusal(network="allowlist", allowed_hosts=["pypi.org", text])
    assert message.startswith("container.allowed_hosts should ")


def test_an_environment_variable_holds_several_with_commas_between() -> None:
    prefix = "DOCKER_INTERPRETER_CONTAINER__"
    env = {f"{prefix}NETWORK": "allowlist", f"{prefix}ALLOWED_HOSTS": "pypi.org, *.example.org"}
    options = Settings.load(env={**env, f"{prefix}DNS": "10.1.2.3", "HOME": "/nowhere"}).container
    assert options.allowed_hosts == ("*.example.org", "pypi.org") and options.dns == ("10.1.2.3",)


@pytest.mark.parametrize("value", [{"pypi.org": 443}, [443], [None], 5, ["a.org"] * 201])
def test_hosts_are_a_list_of_texts(value: object) -> None:
    assert "container.allowed_hosts" in refusal(network="allowlist", allowed_hosts=value)


@pytest.mark.parametrize(
    "network",
    ["127.0.0.0/8", "169.254.169.254/32", "0.0.0.0/0", "::/0", "fe80::/64", "fd00:ec2::254/128", "10.0.0.1/8", "a"],
)
def test_some_networks_are_never_meant(network: str) -> None:
    assert "container.private_networks should " in refusal(**LISTED, private_networks=[network])


@pytest.mark.parametrize(
    "value", [{"a.test": "b"}, {"a b": "10.0.0.1"}, {"a\tb": "10.0.0.1"}, ["a.test:10.0.0.1"], {"": ""}]
)
def test_extra_hosts_are_names_and_addresses(value: object) -> None:
    assert "container.extra_hosts" in refusal(**LISTED, extra_hosts=value)


def test_another_list_is_another_container() -> None:
    hashes = [
        settings_hash(Settings(container=options))  # type: ignore[arg-type]
        for options in (
            {},
            {"network": "full"},
            LISTED,
            {**LISTED, "allowed_hosts": ["pypi.org"]},
            {**LISTED, "private_networks": ["10.0.0.0/8"]},
        )
    ]
    assert len(set(hashes)) == len(hashes)
    same = Settings(container=ContainerOptions(network="none")), Settings(container={"network_disabled": True})  # type: ignore[arg-type]
    assert {settings_hash(one) for one in same} == {hashes[0]}


def test_squid_asks_dns_for_listed_names_alone() -> None:
    """A condition that needs an address comes after those that need none."""
    lines = configuration(ContainerOptions(**LISTED)).splitlines()
    allowed = [line for line in lines if line.startswith("http_access allow")]
    assert len(allowed) == 3
    assert all(re.fullmatch(r"http_access allow host_\d ports_\d !refused", line) for line in allowed)
    assert lines[-1] == "http_access deny all"
    assert all(" -n " in line for line in lines if line.startswith("acl host_"))


@given(st.sampled_from(["10.0.0.0/8", "10.1.2.0/24", "192.168.7.7/32", "172.16.0.0/13", "fc00::/8"]), st.data())
def test_what_is_permitted_is_all_that_is_not_refused(permitted: str, data: st.DataObject) -> None:
    refused = [ipaddress.ip_network(one) for one in refused_networks([permitted])]
    before = [ipaddress.ip_network(one) for one in refused_networks([])]
    whole = ipaddress.ip_network(data.draw(st.sampled_from([permitted, *map(str, before)])))
    offset = data.draw(st.integers(0, whole.num_addresses - 1))
    address = whole.network_address + offset
    inside = address in ipaddress.ip_network(permitted)
    assert any(address in one for one in refused) == (not inside and any(address in one for one in before))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "151.101.0.223", "2a04:4e42::223"])
def test_the_internet_is_not_refused(address: str) -> None:
    assert not any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in refused_networks([]))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "172.17.0.1", "0.1.2.3", "::1", "fe80::1", "64:ff9b::a00:1"]
)
def test_no_name_may_lead_to_this_machine_or_its_neighbours(address: str) -> None:
    assert any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in refused_networks([]))
