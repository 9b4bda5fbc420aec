"""Perform the steps, one function each; whatever ends one, no mapping of ours stays behind."""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import assert_never

from immud.child import in_child
from immud.early.kernel import MNT_DETACH, umount2
from immud.errors import ImmudError
from immud.make import copying, enrolment
from immud.make.header import NO_SUCH_KEY
from immud.make.secret import passed
from immud.make.steps import (
    Copy,
    Enrol,
    Format,
    MakeFileSystem,
    Map,
    Mark,
    Partition,
    Step,
    Unmap,
    Wipe,
)
from immud.make.target import PART_NAME, Stage, Target
from immud.run import CommandFailed, run
from immud.tomb.drives import drive
from immud.tomb.drives.below import SYS
from immud.tomb.fs import blkid
from immud.tomb.luks import dm
from immud.tomb.luks.unlock import TIMEOUT
from immud.watch.devices import DeviceEvent
from immud.watch.udev import UdevWatch

PARTITION_TYPE = "CA7D7CCB-63ED-4C53-861C-1742536059CC"
"""LUKS, of the Discoverable Partitions Specification."""
# A slow stick writes its inode tables for minutes.
MKFS_TIMEOUT = 3600.0

Told = Callable[[Step, str], None]
"""Told of each step as it begins, with nothing, and then of how far it is, in a few words."""

_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-L"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-L"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-L"),
}
# What each file system has room for in its label, bytes.
_LABEL = {"ext4": 16, "btrfs": 255, "xfs": 12}


@contextmanager
def locked(target: Target, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the whole drive's lock: udev does not look at it, or at a partition, until it is free.

    `waiting` is called where somebody else has it. (systemd.io/BLOCK_DEVICE_LOCKING)
    """
    fd = os.open(target.disk, os.O_RDONLY | os.O_CLOEXEC)
    # A child that outlives us, because we were killed, is still at work on the drive.
    os.set_inheritable(fd, True)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


async def carry_out(
    target: Target, steps: tuple[Step, ...], key: bytes, told: Told, title: str = ""
) -> None:
    """Perform `steps` on `target` with the drive locked.

    Raises an ImmudError at the first that fails, and at once when the drive is pulled out.
    """
    works = _Works(target, key, told, title)
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()

    def changed(_: DeviceEvent) -> None:
        if not drive.alive(target.number, target.diskseq) and not gone.done():
            gone.set_result(None)

    watch = UdevWatch(changed)
    watch.start()
    work = loop.create_task(works.perform(steps))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        # What fails for that reason may be heard of before udev has said it.
        error = work.exception() if work.done() else None
        if not work.done() or (error and not drive.alive(target.number, target.diskseq)):
            raise ImmudError(
                f"{target.devnode} was pulled out; plug it in and run this again."
            ) from error
        work.result()
    finally:
        watch.close()
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))
        await works.tidy()


class _Works:
    """The steps of one run, and what of it has to be taken away at the end."""

    def __init__(self, target: Target, key: bytes, told: Told, title: str) -> None:
        self.target, self.key, self.told, self.title = target, key, told, title
        self.mapping = self.file_system = ""
        self.held = -1

    async def perform(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self.told(step, "")
            self.same()
            await self.one(step)

    def same(self) -> None:
        """Raise where the node is another drive's by now: names are used again."""
        number, diskseq = self.target.number, self.target.diskseq
        found = os.stat(self.target.devnode).st_rdev
        there = f"{os.major(found)}:{os.minor(found)}" == number and drive.alive(number, diskseq)
        if not there:
            raise ImmudError(f"{self.target.devnode} is another drive now. Nothing was done to it.")

    async def one(self, step: Step) -> None:
        match step:
            case Unmap():
                if self.mapping:
                    self.file_system = await file_system(step.mapping)
                self.let_go()
                await unmap(step.mapping)
                self.mapping = ""
            case Wipe():
                for devnode in step.devnodes:
                    await run("wipefs", "--quiet", "--all", devnode)
            case Partition():
                await partition(step)
            case Format():
                await format_(step, self.key)
            case Map():
                self.mapping = step.mapping
                await map_(step, self.key)
                self.hold()
            case MakeFileSystem():
                await make_file_system(f"/dev/mapper/{step.mapping}", step.filesystem, step.label)
            case Mark():
                await mark(step.volume, step.label, step.stage)
            case Copy():
                await copying.copy(
                    f"/dev/mapper/{step.mapping}",
                    step.filesystem,
                    step.source,
                    lambda progress: self.told(step, progress),
                )
            case Enrol():
                await enrolment.enrol(step.volume, step.wish, self.title, self.file_system)
            case _:
                assert_never(step)

    def hold(self) -> None:
        """From now on the kernel itself removes the mapping when the last who has it open ends.

        So it does not stay behind, and the key in it, even if this process is killed.
        """
        self.held = os.open(f"/dev/mapper/{self.mapping}", os.O_RDONLY | os.O_CLOEXEC)
        dm.remove(self.mapping, deferred=True)

    def let_go(self) -> None:
        if self.held >= 0:
            os.close(self.held)
            self.held = -1

    async def tidy(self) -> None:
        """After a failure: the mapping goes, and with a pulled drive everything on it."""
        self.let_go()
        if not self.mapping:
            return
        if drive.alive(self.target.number, self.target.diskseq):
            with suppress(ImmudError):
                await unmap(self.mapping)
        else:
            drop(self.mapping)


def drop(mapping: str) -> None:
    """Take away a mapping whose drive is gone: nobody waits for it, and its key is wiped."""
    with suppress(OSError):
        umount2(copying.PLACE, MNT_DETACH)
    found = next((each for each in dm.mappings() if each.name == mapping), None)
    if found:
        with suppress(OSError):
            dm.wipe(mapping, dm.sectors(found.number))
            dm.remove(mapping, deferred=True)


async def unmap(mapping: str) -> None:
    """cryptsetup close, which tries again for a while: udev may be looking at it still.

    4 is "there is no such mapping": it has gone by itself.
    """
    if any(mapping == found.name for found in dm.mappings()):
        await run("cryptsetup", "close", mapping, allowed=(0, 4))


async def partition(step: Partition) -> None:
    """One partition that begins and ends where the drive likes it, which sfdisk(8) knows."""
    script = f'label: gpt\ntype={PARTITION_TYPE}, name="{PART_NAME}"\n'
    # Ours is the lock it would take.
    await run(
        *("sfdisk", "--quiet", "--lock=no", "--wipe=always", "--wipe-partitions=always"),
        step.disk,
        stdin=script.encode(),
    )


async def format_(step: Format, key: bytes) -> None:
    """cryptsetup's own defaults for everything, unless the person asked for another derivation."""
    with passed(key) as path:
        await run(
            *("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--key-file", path),
            *("--label", step.label, "--subsystem", step.stage, *step.derivation, step.volume),
            timeout=TIMEOUT,
        )


async def map_(step: Map, key: bytes) -> None:
    """Raises ImmudError where the key, which a run before this one may have chosen, is wrong."""
    try:
        with passed(key) as path:
            await run(
                *("cryptsetup", "open", "--type", "luks2", "--key-file", path),
                *(step.volume, step.mapping),
                timeout=TIMEOUT,
            )
    except CommandFailed as error:
        if error.code != NO_SUCH_KEY:
            raise
        raise ImmudError(
            "This is not the passphrase (or key) that the interrupted run was given. Run this "
            "again with that, or add --overwrite to start over."
        ) from error


async def make_file_system(device: str, filesystem: str, label: str) -> None:
    """mkfs of that kind; of the label as much as there is room for."""
    label = label[: _LABEL[filesystem]]
    await run(*_MKFS[filesystem], label, device, timeout=MKFS_TIMEOUT)


async def file_system(mapping: str) -> str:
    """The UUID of the file system in a mapping."""
    _, uuid = await in_child(blkid.probe, f"/dev/mapper/{mapping}", tuple(_MKFS))
    return str(uuid)


async def mark(volume: str, label: str, stage: Stage) -> None:
    """cryptsetup config, which writes one copy of the header after the other."""
    await run("cryptsetup", "config", "--label", label, "--subsystem", stage, volume)


async def settle(target: Target) -> None:
    """Once the lock is free, have udev look at the drive and its partitions, and wait for that.

    What happened to them during a long copy it has given up looking at.
    """
    if not UdevWatch(lambda _: None).available:
        return
    where = f"{SYS}/dev/block/{target.number}"
    inside = [name for name in os.listdir(where) if os.path.exists(f"{where}/{name}/partition")]
    nodes = [target.devnode, *(f"/dev/{name}" for name in inside)]
    with suppress(ImmudError):
        await run("udevadm", "trigger", "--action=change", "--settle", *nodes)
