"""How squid is told which hosts a session may reach: its configuration, as text.

Squid looks at conditions from left to right and stops at the first that does not hold. So it asks DNS for no name but
one that is listed: what a session wants to tell the world in the names that it asks for, it tells nobody.
"""

from __future__ import annotations

import re

from ..container_options import ContainerOptions
from ..network_options import AllowedHost, refused_networks

PORT = 3128
READY = b"Accepting HTTP Socket connections"
"""What squid says once it can be used."""

_SETTINGS = f"""\
# from the session's side alone, by way of socat
http_port 127.0.0.1:{PORT}
visible_hostname proxy
httpd_suppress_version_string on

# a name is what was written, never completed with a domain of the host's
dns_defnames off
# Addresses that were found allowed are used for so long, however soon DNS wants them forgotten: otherwise it could give
# another address between the two.
negative_dns_ttl 60 seconds
connect_timeout 20 seconds

# nothing is kept, nothing is told about who asked
cache deny all
cache_mem 0 MB
cache_store_log none
memory_pools off
netdb_filename none
unlinkd_program /bin/true
via off
forwarded_for delete

# what was let through and what was refused is in the container's log
access_log stdio:/dev/stdout
cache_log /dev/null
logfile_rotate 0
pid_filename none
coredump_dir none
pinger_enable off
max_filedescriptors 1024
shutdown_lifetime 1 second
"""


def configuration(options: ContainerOptions) -> str:
    """Lets through what ``allowed_hosts`` names, unless it leads to a private address, and nothing else."""
    # at a listed host they would be other services than a web server, and FTP has connections to elsewhere made
    lines = ["acl other_schemes proto FTP GOPHER WAIS WHOIS URN CACHE_OBJECT"]
    lines += [f"acl refused dst {network}" for network in refused_networks(options.private_networks)]
    rules = ["http_access deny other_schemes"]
    for number, host in enumerate(map(AllowedHost.parse, options.allowed_hosts)):
        # -n: of an address that was written instead of a name DNS is not asked for the name
        if host.below:
            lines.append(rf"acl host_{number} dstdom_regex -n -i ^([a-z0-9_-]+\.)+{re.escape(host.name)}$")
        else:
            lines.append(f"acl host_{number} dstdomain -n {host.name}")
        lines.append(f"acl ports_{number} port {' '.join(map(str, host.ports))}")
        rules.append(f"http_access allow host_{number} ports_{number} !refused")
    return "\n".join([_SETTINGS, *lines, *rules, "http_access deny all", ""])
