"""What /proc says of a process: its name, its control group, and the systemd unit of that."""

from contextlib import suppress

CONTAINERS = ("docker-", "libpod-", "crio-", "cri-containerd-", "machine-", "lxc")


def read(path: str) -> str:
    """A file of /proc, whatever bytes are in it (PEP 383). Raises OSError where it has ended."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def command(pid: int) -> str:
    """The name that a process gave itself, made printable; empty where it has ended."""
    with suppress(OSError):
        name = read(f"/proc/{pid}/comm").strip()
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return ""


def unit(pid: int) -> str:
    """The unit a process belongs to, the innermost; empty where it has ended or is in none."""
    with suppress(OSError):
        return unit_of(cgroup_of(read(f"/proc/{pid}/cgroup")))
    return ""


def cgroup_of(text: str) -> str:
    """The control group in a `/proc/PID/cgroup` (cgroups(7)): the unified one, or systemd's."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found[controllers] = path
    unified = found.get("", "/")
    return unified if unified != "/" else found.get("name=systemd", "/")


def unit_of(cgroup: str) -> str:
    """The innermost systemd unit of a control group, empty where it is in none."""
    for name in reversed(cgroup.split("/")):
        if name.endswith((".service", ".scope")):
            return name
    return ""


def whole(cgroup: str) -> str:
    """The control group that ends with its holder, or empty where only the process may.

    A login session (`session-3.scope`), a user manager with all it started
    (`user@1000.service`), a container or a machine. System services are none of these.
    """
    parts = cgroup.split("/")
    for at, name in enumerate(parts):
        session = name.startswith("session-") and name.endswith(".scope")
        manager = name.startswith("user@") and name.endswith(".service")
        container = name.endswith(".scope") and name.startswith(CONTAINERS)
        machine = at > 1 and parts[at - 1] == "machine.slice" and "." in name
        if session or manager or container or machine:
            return "/".join(parts[: at + 1])
    return ""
