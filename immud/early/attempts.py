"""How many boots in a row did not come to their end; after two, one is made without the layout.

The number is in the root file system's own /etc/immud, in a file of one size that
is overwritten in place: that needs no space, and a disk writes a sector wholly or
not at all. Counted up here before the first mount; the script `boot-count` sets it back
when the target that was booted is reached, and takes this boot back at a shutdown in good order.

A boot without the layout makes the next one try again, whatever becomes of it: a machine that
never comes to its end, with or without the layout, is protected every other time. One into rescue
or emergency mode, asked for on the kernel command line, is not counted: nobody waits for its end.
It may be the one without the layout all the same.
"""

import os

PATH = "/etc/immud/boot.count"
# What the number was when this boot was counted: a restarted phase 1 does not count again.
COUNTED = "/run/immud/counted"
LIMIT = 2

_TEXT = "Boots in a row that did not come to their end: "
# kernel-command-line(7): what asks for a mode in which the layout may be what is to be mended.
_RESCUE = frozenset(
    {
        *("rescue", "single", "s", "-s", "S", "1", "emergency", "-b"),
        *("systemd.unit=rescue.target", "systemd.unit=emergency.target"),
    }
)


def begin(command_line: frozenset[str]) -> int:
    """Count this boot, and return how many before it failed in a row.

    With LIMIT of them or more this boot is to be made without the layout, and the next one is the
    last that fails with it. Raises OSError where the number cannot be written, and nothing would
    keep a third boot from failing like two before.
    """
    try:
        with open(COUNTED, encoding="utf-8") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        pass  # a new boot, or one that was cut off on the next lines
    failed = read()
    if not command_line & _RESCUE:
        os.makedirs(os.path.dirname(COUNTED), 0o755, exist_ok=True)
        with open(COUNTED, "w", encoding="utf-8") as file:
            file.write(str(failed))
    elif failed < LIMIT:
        return failed
    try:
        write(failed + 1 if failed < LIMIT else LIMIT - 1)
    except OSError:
        if failed < LIMIT:
            raise
    return failed


def read(path: str = PATH) -> int:
    """The number in the file; 0 where there is none, or nothing anybody can read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(fd, 4096).decode("utf-8", "replace")
    except OSError:
        return 0
    finally:
        os.close(fd)
    number = text.removeprefix(_TEXT).strip()
    return int(number) if text.startswith(_TEXT) and number.isdecimal() else 0


def write(number: int, path: str = PATH) -> None:
    """Overwrite the number and have it on the disk on return. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, f"{_TEXT}{min(number, 99):2}\n".encode())
    finally:
        os.close(fd)
