"""Object paths and what they stand for."""

ROOT = "/org/immud1"
NAME = "org.immud1"
NONE = "/"
"""The object path that stands for no object."""
UINT32_DIGITS = 10
"""What an id has at most; int() raises ValueError from a few thousand on."""


def encode(label: str) -> str:
    """Any string as one element of an object path, as sd_bus_path_encode(3) does it."""
    if not label:
        return "_"
    return "".join(
        chr(byte) if _plain(byte, first=index == 0) else f"_{byte:02x}"
        for index, byte in enumerate(label.encode(errors="surrogateescape"))
    )


def decode(element: str) -> str:
    """The string an element stands for."""
    if element == "_":
        return ""
    first, *rest = element.split("_")
    data = first.encode()
    for part in rest:
        data += bytes.fromhex(part[:2]) + part[2:].encode()
    return data.decode(errors="surrogateescape")


def _plain(byte: int, *, first: bool) -> bool:
    character = chr(byte)
    if not character.isascii():
        return False
    return character.isalpha() or (character.isdigit() and not first)


def tomb_path(name: str) -> str:
    return f"{ROOT}/tomb/{encode(name)}"


def tomb_name(path: str) -> str:
    return decode(path.rpartition("/")[2])


def mount_path(where: str) -> str:
    """/usr is /org/immud1/mount/usr, /var/home is .../var_2dhome, / is .../_2d.

    That is the name systemd gives the mount unit (systemd-escape(1) with --path),
    without its suffix, as an element: readable for every path there is in the layout.
    """
    parts = [part for part in where.split("/") if part]
    unit = "-".join(part.replace("-", "\\x2d") for part in parts) or "-"
    return f"{ROOT}/mount/{encode(unit)}"


def job_path(number: int) -> str:
    return f"{ROOT}/job/{number}"


def job_number(path: str) -> int:
    """The id in a job's path, or 0 where it is no such path."""
    prefix, _, number = path.rpartition("/")
    digits = number.isascii() and number.isdigit() and len(number) <= UINT32_DIGITS
    return int(number) if digits and prefix == f"{ROOT}/job" else 0


def finding_path(number: int) -> str:
    return f"{ROOT}/finding/{number}"


def lease_path(id: str) -> str:
    return f"{ROOT}/lease/{encode(id)}"
