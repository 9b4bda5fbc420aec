"""Copy homes into a fresh tomb with rsync(1), and prove that they arrived.

The file system is mounted in a mount namespace of this process alone: nobody else sees it half
full, and it is gone with the process, whatever ends that. What an interrupted run copied is kept:
rsync skips it.
"""

import os
import re
from collections.abc import Callable

from immud.early import kernel, mountinfo
from immud.errors import ImmudError
from immud.run import CommandFailed, Result, run

PLACE = "/run/immud/making"
ROUNDS = 3
"""How often what changed meanwhile is copied again, before it is for the person to see to."""

# Everything a home has: hard links, ACLs, other attributes, holes, ids as they are, times to the
# nanosecond. And with the second: nothing that is mounted in it.
_OPTIONS = (
    *("-aHAXS", "--numeric-ids", "--modify-window=-1", "--delete"),
    # XFS shows ACLs under these names as well. Who filters attributes has to leave out system.*,
    # the kernel's own, too (rsync(1), --xattrs).
    *("--filter=-x trusted.SGI_ACL_*", "--filter=-x system.*"),
)
_WHOLE_DRIVE = ("-x", "--exclude=/lost+found")
_PROGRESS = re.compile(rb"\s(\d{1,3})%\s")
# Files that went while they were to be copied (rsync(1), EXIT VALUES): the next round knows. Where
# one goes while its attributes are read, that is a partial transfer; as it is, in nearly the same
# words, where the whole source is not there.
_PARTIAL, _VANISHED = 23, 24
_WENT = re.compile(
    r"(file has vanished: .*|rsync: \[sender\] get_(acl|xattr).*: No such file or directory \(2\)"
    r"|rsync (warning|error): some files.*|)"
)
_SHOWN = 10


def mounted_in(source: str) -> tuple[str, ...]:
    """What is mounted in a directory, and so not copied with it."""
    inside = f"{os.path.realpath(source).rstrip('/')}/"
    return tuple(e.target for e in mountinfo.read() if e.target.startswith(inside))


async def size(source: str) -> int:
    """How much room the contents of a directory take, in bytes. Takes as long as du(1) does."""
    said = await run(
        *("du", "--summarize", "--one-file-system", "--block-size=1", "--", source),
        timeout=None,
        allowed=(0, 1),
    )
    return int(said.stdout.split()[0])


async def copy(device: str, filesystem: str, source: str, progress: Callable[[str], None]) -> None:
    """Copy what is in the directory `source` to the file system on `device`.

    `progress` is told in a few words how far it is.

    Raises ImmudError where something could not be read or written, or changes all the time.
    """
    kernel.unshare(kernel.CLONE_NEWNS)
    # What is unmounted outside goes here too, and nothing of here is seen outside.
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    os.makedirs(PLACE, mode=0o700, exist_ok=True)
    for attempt in range(ROUNDS):
        async with _Mounted(device, filesystem):
            # What differs with the time and size of its original is found by its content alone.
            more = ("-c",) if attempt else ()
            await rsync(source, PLACE, progress, (*_WHOLE_DRIVE, *more))
        # Mounted anew, or the comparison would read what is still in memory.
        progress("comparing")
        async with _Mounted(device, filesystem):
            differing = await differences(source, PLACE, (*_WHOLE_DRIVE, "-c"))
        if not differing:
            return
    raise ImmudError(
        f"These are written to all the time, and differ from their copies:\n{listed(differing)}\n"
        "Log those users out (loginctl), or stop what writes there, and run the same command "
        "again: it resumes from here."
    )


class _Mounted:
    """The file system, mounted at PLACE for a while."""

    def __init__(self, device: str, filesystem: str) -> None:
        self.device, self.filesystem = device, filesystem

    async def __aenter__(self) -> None:
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount(self.device, PLACE, self.filesystem, flags)

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        # Lazily after a failure: a pulled drive must not hold us up.
        kernel.umount2(PLACE, kernel.MNT_DETACH if kind else 0)


async def rsync(
    source: str, place: str, progress: Callable[[str], None], more: tuple[str, ...] = ()
) -> None:
    """Make what is in the directory `place` the same as what is in `source`.

    Raises ImmudError where something could not be read or written.
    """

    def heard(text: bytes) -> None:
        if found := _PROGRESS.findall(text):
            progress(f"copied {int(found[-1])}%")

    argv = ("rsync", *_OPTIONS, *more, "--info=progress2", "--no-inc-recursive", "--")
    try:
        await _performed(*argv, *_ends(source, place), heard=heard)
    except CommandFailed as error:
        raise ImmudError(f"Not everything could be copied: {_told(error)}") from error


async def differences(source: str, place: str, more: tuple[str, ...]) -> list[str]:
    """What rsync would still do, one path a line; with `-c`, having compared every byte."""
    argv = ("rsync", *_OPTIONS, *more, "-ni", "--out-format=%i %n%L", "--")
    try:
        said = await _performed(*argv, *_ends(source, place))
    except CommandFailed as error:
        raise ImmudError(f"The copy could not be compared: {_told(error)}") from error
    return said.stdout.decode(errors="replace").splitlines()


async def _performed(*argv: str, heard: Callable[[bytes], None] = lambda _: None) -> Result:
    """Raises CommandFailed where more went wrong than that files went."""
    done = await run(*argv, timeout=None, allowed=(0, _PARTIAL, _VANISHED), heard=heard)
    if done.code == _PARTIAL and not all(map(_WENT.fullmatch, done.stderr.split("\n"))):
        raise CommandFailed(argv, done.code, done.stderr)
    return done


def listed(differing: list[str]) -> str:
    """The first of `differences`, for a person."""
    shown = "\n".join(f"  {line}" for line in differing[:_SHOWN])
    more = f"\n  and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return shown + more


def _ends(source: str, place: str) -> tuple[str, str]:
    # What is in the directory, and not the directory itself.
    return f"{source.rstrip('/')}/", f"{place.rstrip('/')}/"


def _told(error: CommandFailed) -> str:
    lines = [line for line in error.stderr.strip().split("\n") if line]
    return "\n".join(lines[:_SHOWN]) or str(error)
