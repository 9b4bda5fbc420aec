"""What is looked up about a place or a device, beyond the mount table."""

import os

from immud.early.observe import unit_name

# Where only the system's own administrator, a package, or a generator at boot can put a mount unit
# (systemd.unit(5)): not where systemd-mount(1) puts those it makes on the fly.
UNITS = (
    *("/etc/systemd/system", "/run/systemd/system"),
    *("/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late"),
    *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system"),
)


def is_declared(path: str) -> bool:
    """Whether systemd was told to mount something at `path`: by fstab, a partition's type or a
    unit of that name (systemd.mount(5)).
    """
    name = f"{unit_name(path)}.mount"
    return any(os.path.lexists(f"{directory}/{name}") for directory in UNITS)


def device(node: str) -> str:
    """The `major:minor` of a block device's node, empty where there is none."""
    try:
        number = os.stat(node).st_rdev if node else 0
    except OSError:
        return ""
    return f"{os.major(number)}:{os.minor(number)}" if number else ""
