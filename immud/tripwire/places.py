"""What is looked up about a place or a device, beyond the mount table."""

import os

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


def unit_name(path: str) -> str:
    """The name of a path's unit without its suffix, as systemd-escape(1) with --path."""
    parts = [part for part in path.split("/") if part]
    text = "\0".join(parts)
    name = "".join(
        "-" if byte == 0
        else chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in ":_.")
        else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )  # fmt: skip
    return (f"\\x2e{name[1:]}" if name.startswith(".") else name) or "-"


def device(node: str) -> str:
    """The `major:minor` of a block device's node, empty where there is none."""
    try:
        number = os.stat(node).st_rdev if node else 0
    except OSError:
        return ""
    return f"{os.major(number)}:{os.minor(number)}" if number else ""
