"""The boot plan: what phase 1 is to achieve, as a flat file it can read in no time.

Compiled ahead of time from the configuration, and carrying the bytes of every
file it was compiled from: phase 1 uses it only while those are still the same.
One record a line, fields separated by tabs, control characters and backslashes
as octal escapes like mountinfo's; the last line counts the records and sums
their bytes, so that a torn file is never taken for a whole one. What another version
of immud has written and this one does not know is no plan of this version: to leave
a record out would be to protect less than was asked for.
"""

from zlib import crc32

FORMAT = "immud-plan"
VERSION = "1"
PATH = "/etc/immud/boot.plan"
KINDS = ("link", "bind")
_SINGLE = ("usr", "etc", "var", "root", "wait", "logins")


class PlanError(ValueError):
    """The file is not a whole boot plan of this version."""


class Row:
    """A line of the layout: `path` becomes a link to, or a bind of, `target`.

    `target` is what the link contains, relative to the link's directory
    (`var/home`, `../var/usrlocal`); `mode` is that of the directory it names.
    """

    __slots__ = ("inside", "kind", "mode", "path", "target")

    def __init__(
        self,
        path: str,
        target: str,
        kind: str = "link",
        mode: int = 0o755,
        inside: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.target = target
        self.kind = kind
        self.mode = mode
        self.inside = inside

    def _key(self) -> tuple[object, ...]:
        return (self.path, self.target, self.kind, self.mode, self.inside)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Row{self._key()!r}"

    @property
    def directory(self) -> str:
        """The absolute path of the directory the row leads to, /var/home for /home."""
        parts: list[str] = self.path.split("/")[:-1]
        for part in self.target.split("/"):
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        return "/".join(parts)

    @property
    def directories(self) -> tuple[str, ...]:
        """That directory and the ones expected inside it."""
        return (self.directory, *(f"{self.directory}/{name}" for name in self.inside))


class BootPlan:
    """What the next boot is to achieve.

    `usr`, `etc` and `var` are sources in the configuration's own words: a path,
    or `LABEL=x`, `UUID=x`, `PARTLABEL=x`, each with an optional `:/sub/path`.
    The path itself (`/usr`) means the tree that is already there. `hold` names units
    that immud-generator keeps from starting where one of them is missing; with `logins`
    it has logins wait for people's homes. `tombs` are the places of tombs and of their
    binds, which it has systemd unmount after the daemon and not beside it.
    """

    __slots__ = (
        *("configs", "etc", "hold", "logins", "root", "rows", "tombs", "usr", "var", "wait"),
    )

    def __init__(
        self,
        *,
        usr: str = "/usr",
        etc: str = "/etc",
        var: str = "/var",
        rows: tuple[Row, ...] = (),
        root: bool = True,
        wait: int = 10,
        hold: tuple[str, ...] = (),
        logins: bool = False,
        tombs: tuple[str, ...] = (),
        configs: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        self.usr = usr
        self.etc = etc
        self.var = var
        self.rows = rows
        self.root = root
        self.wait = wait
        self.hold = hold
        self.logins = logins
        self.tombs = tombs
        self.configs = configs

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BootPlan) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"BootPlan{self._key()!r}"


def escape(text: str) -> str:
    """`text` without tabs, line breaks or other control characters, octal as in mountinfo."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        f"\\{ord(c):03o}" if c == "\\" or ord(c) < 32 or ord(c) == 127 else c for c in text
    )


def unescape(text: str) -> str:
    """The text `escape` was given."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(chr(int(piece[:3], 8)) + piece[3:] for piece in rest)


def records(lines: list[tuple[str, ...]]) -> str:
    """Records as text: a line each, fields separated by tabs."""
    return "".join("\t".join(map(escape, line)) + "\n" for line in lines)


def encode(plan: BootPlan) -> bytes:
    """The plan as the bytes of its file."""
    lines: list[tuple[str, ...]] = [(FORMAT, VERSION)]
    lines += [("config", path, data.decode("latin-1")) for path, data in plan.configs]
    lines += [("usr", plan.usr), ("etc", plan.etc), ("var", plan.var)]
    lines += [("hold", unit) for unit in plan.hold]
    lines += [("logins", "wait")] if plan.logins else []
    lines += [("tomb", place) for place in plan.tombs]
    lines += [("root", "ro" if plan.root else "rw"), ("wait", str(plan.wait))]
    lines += [
        ("row", row.path, row.target, row.kind, f"{row.mode:o}", *row.inside) for row in plan.rows
    ]
    body = records(lines).encode("utf-8", "surrogateescape")
    return body + f"end\t{len(lines)}\t{crc32(body)}\n".encode()


def decode(data: bytes) -> BootPlan:
    """The plan in `data`. Raises PlanError for anything but a whole plan of this version."""
    at = data.rfind(b"\nend\t") + 1
    body, end = data[:at], data[at:]
    lines = body.decode("utf-8", "surrogateescape").split("\n")[:-1]
    if not at or end != f"end\t{len(lines)}\t{crc32(body)}\n".encode():
        raise PlanError("the plan is not whole: its closing line does not match")
    if lines[0] != f"{FORMAT}\t{VERSION}":
        raise PlanError(f"written by another version of immud: {lines[0]!r}")
    rows: list[Row] = []
    configs: list[tuple[str, bytes]] = []
    hold: list[str] = []
    tombs: list[str] = []
    single: dict[str, str] = {}
    try:
        for line in lines[1:]:
            name, *fields = map(unescape, line.split("\t"))
            if name == "row" and fields[2] in KINDS:
                path, target, kind, mode, *inside = fields
                rows.append(Row(path, target, kind, int(mode, 8), tuple(inside)))
            elif name == "hold":
                hold.append(fields[0])
            elif name == "tomb":
                tombs.append(fields[0])
            elif name == "config":
                configs.append((fields[0], fields[1].encode("latin-1")))
            elif name in _SINGLE:
                single[name] = fields[0]
            else:
                raise PlanError(f"written by another version of immud: {line!r}")
        return BootPlan(
            usr=single["usr"],
            etc=single["etc"],
            var=single["var"],
            rows=tuple(rows),
            root=single["root"] == "ro",
            wait=int(single["wait"]),
            hold=tuple(hold),
            logins="logins" in single,
            tombs=tuple(tombs),
            configs=tuple(configs),
        )
    except PlanError:
        raise
    except (KeyError, IndexError, ValueError) as error:
        raise PlanError(f"the plan lacks a record: {error}") from error
