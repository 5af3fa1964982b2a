"""Container options that are refused by name, and why."""

from __future__ import annotations

ALLOW = "allow_unsafe_options"
UNSAFE = frozenset(
    ("binds", "cap_add", "cgroup_parent", "device_cgroup_rules", "devices", "group_add", "ipc_mode", "pid_mode")
    + ("privileged", "security_opt", "sysctls", "user", "userns_mode", "uts_mode", "volumes_from")
)
"""Those that an administrator can have in spite of the reason, where :data:`ALLOW` says so."""

_REASONS: dict[str, tuple[str, ...]] = {
    "`image` is a setting of its own, beside `container`": ("image",),
    "docker-py calls it mem_limit": ("memory", "mem"),
    "docker-py calls it nano_cpus, and 1 CPU is 1000000000": ("cpus", "cpu_count", "cpu_percent"),
    "nano_cpus sets the processor limit": (
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpuset_cpus",
        "cpuset_mems",
    ),
    "mem_limit sets the memory limit": ("kernel_memory", "mem_reservation"),
    "the engine's own defaults decide on the speed of its disks": (
        "blkio_weight",
        "blkio_weight_device",
        "device_read_bps",
        "device_read_iops",
        "device_write_bps",
        "device_write_iops",
    ),
    "the container runs the session's own supervisor": (
        "command",
        "entrypoint",
        "healthcheck",
        "init",
        "init_path",
        "stop_signal",
        "stop_timeout",
    ),
    "it names what docker-py is made of, or another kind of engine": (
        "host_config",
        "isolation",
        "lxc_conf",
        "platform",
        "version",
    ),
    "containers are named after their session's key": ("name",),
    "labels are how sessions are found again": ("labels",),
    "it is how the session's stream is opened": (
        "attach",
        "detach",
        "stdin_open",
        "stdout",
        "stderr",
        "stream",
        "tty",
    ),
    "containers are removed when they end": ("auto_remove", "remove", "restart_policy"),
    "sessions always run as the image's unprivileged user": ("user", "group_add"),
    "there is never swap on top of mem_limit": ("memswap_limit", "mem_swappiness"),
    "the kernel must be the first to go when memory runs out": ("oom_kill_disable", "oom_score_adj"),
    "the engine's own log must stay small": ("log_config",),
    "the root file system stays read-only; tmp_size and home_size size what can be written": (
        "read_only",
        "tmpfs",
        "storage_opt",
    ),
    "a session's files have a volume of their own, and `volumes` binds folders of the host": (
        "volumes_from",
        "volume_driver",
        "mounts",
        "binds",
    ),
    "it would take the sandbox away": ("privileged",),
    "all capabilities stay dropped": ("cap_add", "cap_drop"),
    "it would replace the seccomp profile or no-new-privileges": ("security_opt",),
    "it would let code in the session reach the host's hardware": (
        "devices",
        "device_cgroup_rules",
    ),
    "it would share a namespace with the host or with another container": (
        "cgroupns",
        "ipc_mode",
        "pid_mode",
        "userns_mode",
        "uts_mode",
    ),
    "it would take the container out of the engine's limits": ("cgroup_parent", "ulimits", "sysctls"),
    "`network` decides on the network; sessions publish nothing": (
        "dns_opt",
        "dns_search",
        "domainname",
        "links",
        "mac_address",
        "network_mode",
        "networking_config",
        "port_bindings",
        "ports",
        "publish_all_ports",
        "use_config_proxy",
    ),
}

REFUSED_OPTIONS: dict[str, str] = {
    name: reason + (f" ({ALLOW}: true beside it lets it through)" if name in UNSAFE else "")
    for reason, names in _REASONS.items()
    for name in names
}
"""The reason for each option that is refused; other options that docker-py knows are unknown here."""
