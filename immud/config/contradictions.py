"""What of a configuration contradicts itself, although each of its keys is right. Pure."""

from collections.abc import Collection, Iterator, Mapping

from immud.config import rules
from immud.config.claims import Wrong
from immud.config.rules import within
from immud.config.toml import Key
from immud.early.plan import Row
from immud.model import TombConfig


def of_rows(rows: tuple[Row, ...], configured: Collection[str]) -> Iterator[Wrong]:
    """No row is inside another, and no two lead to one directory.

    `configured` are the paths of those that a file has something to say of.
    """
    for at, row in enumerate(rows):
        for other in rows[:at]:
            late, early = (row, other) if row.path in configured else (other, row)
            if within(row.path, other.path) or within(other.path, row.path):
                text = f"and {early.path} are one inside the other; drop one of them"
                yield ("links", late.path), text
            elif within(row.directory, other.directory) or within(other.directory, row.directory):
                yield (
                    ("links", late.path, "target"),
                    f"leads to {late.directory}, and {early.path} to {early.directory}; "
                    "give each a directory of its own",
                )


def of_tombs(
    tombs: tuple[TombConfig, ...], rows: tuple[Row, ...], given: Collection[Key]
) -> Iterator[Wrong]:
    """Each tomb is one volume, that can be opened, and has a place of its own below /var.

    `given` are the keys that are in a file.
    """
    for at, tomb in enumerate(tombs):
        if not tomb.encrypted:
            yield from _of_plain(tomb, given)
        if tomb.uuid and len(tomb.uuid) < 36 and not tomb.file:
            yield (
                ("tomb", tomb.name, "uuid"),
                f'is "{tomb.uuid}", which no LUKS volume has; if the tomb is a file on that '
                'drive, give file = "PATH" as well',
            )
        if tomb.key.startswith("drive:") and not tomb.file:
            yield (
                ("tomb", tomb.name, "key"),
                f'is "{tomb.key}", and the drive itself is the tomb: its key is on another '
                "one; name that, or give the tomb a file",
            )
        yield from _of_place(tomb, tombs[:at], rows)


def _of_plain(tomb: TombConfig, given: Collection[Key]) -> Iterator[Wrong]:
    """A tomb without encryption is one file system, and nothing has to be unlocked."""
    key = ("tomb", tomb.name, "encrypted")
    if not tomb.uuid:
        text = "is false, which is said of one file system and no other; give its uuid as well"
        yield key, text
    for name in ("key", "file"):
        if ("tomb", tomb.name, name) in given:
            yield key, f"is false, and {name} is for an encrypted tomb; drop one of them"


def _of_place(
    tomb: TombConfig, before: tuple[TombConfig, ...], rows: tuple[Row, ...]
) -> Iterator[Wrong]:
    key = ("tomb", tomb.name, "mount")
    try:
        rules.below_var(tomb.mount)
    except rules.Wrong as error:
        yield key, str(error)
        return
    for row in rows:
        if row.directory != tomb.mount and within(row.directory, tomb.mount):
            yield (
                key,
                f"{tomb.mount} would hide {row.directory}, where "
                f"{row.path} leads; mount it elsewhere below /var",
            )
    for other in before:
        if tomb.mount == other.mount:
            yield (
                key,
                f"{tomb.mount} is where tomb {other.name} goes already; "
                "give each a directory of its own",
            )
        if tomb.uuid and (tomb.uuid, tomb.file) == (other.uuid, other.file):
            yield ("tomb", tomb.name, "uuid"), f"is the volume of tomb {other.name} already"


def of_sources(sources: Mapping[str, str], rows: tuple[Row, ...]) -> Iterator[Wrong]:
    """No source is hidden by what immud puts in its way, or is another's."""
    for at, (name, source) in enumerate(sources.items()):
        if source == f"/{name}":
            continue
        key = (name, "source")
        for cover in ("/usr", "/etc", "/var"):
            covered = cover != "/var" or sources["var"] != "/var" or source == "/var"
            if covered and within(source, cover):
                yield (
                    key,
                    f'is "{source}", inside {cover}, which something '
                    "else is put over; it has to be elsewhere",
                )
        for row in rows:
            if within(source, row.path):
                real = row.directory + source.removeprefix(row.path)
                yield key, f'is "{source}", behind the link at {row.path}; write "{real}"'
        for other in list(sources)[:at]:
            if _overlap(source, sources[other]) and sources[other] != f"/{other}":
                yield (
                    key,
                    f'is "{source}", and {other}.source is '
                    f'"{sources[other]}": one inside the other; give each its own',
                )


def _overlap(one: str, two: str) -> bool:
    """Do two sources name one tree, or a tree and a part of it?"""

    def split(source: str) -> tuple[str, str]:
        if source.startswith("/"):
            return "", source
        device, _, path = source.partition(":")
        return device, path or "/"

    (device, path), (other_device, other_path) = split(one), split(two)
    return device == other_device and (within(path, other_path) or within(other_path, path))
