"""Look at a block device, and change nothing: sysfs, the mount table, and what is written on it."""

import json
import os
import stat
from collections.abc import Iterable, Iterator

from immud.early import mountinfo
from immud.early.sources import split
from immud.errors import ImmudError
from immud.make.target import MAPPING_SUFFIX, PART_NAME, Stage, Target, human
from immud.model import Config
from immud.run import run
from immud.tomb.drives.below import SYS, device_of, number_of, stack, text, uses
from immud.tomb.luks.dm import PREFIX

SYSTEM = ("/", "/usr", "/boot", "/boot/efi", "/efi", "/etc", "/var")
# What sysfs calls things that hold blocks and are no drives.
_FOREIGN = {
    "dm-": "a mapping, which stands on another device",
    "md": "an array of drives",
    "zram": "compressed memory",
    "ram": "memory",
    "sr": "an optical drive",
    "fd": "a floppy drive",
}
# How much of a device without any signature is looked at for data of an unknown kind, bytes.
_LOOK = 1 << 20


async def look(path: str, config: Config) -> Target:
    """The block device `path` as it is now. Raises ImmudError where it is none."""
    number, node = _identify(path)
    where = os.path.realpath(f"{SYS}/dev/block/{number}")
    partition = os.path.exists(f"{where}/partition")
    top = os.path.dirname(where) if partition else where
    parts = () if partition else tuple(_partitions(where))
    numbers = {number: node, **dict(parts)}
    leftovers, holders = _holders(numbers)
    found = [await _signatures(each) for each in numbers.values()]
    content = [line for lines, _ in found for line in lines]
    uuids = {uuid for _, each in found for uuid in each}
    stage, volume = await _stage(node, numbers, [lines for lines, _ in found])
    size = int(text(f"{where}/size") or 0) * 512
    return Target(
        devnode=node,
        number=number,
        disk=f"/dev/{os.path.basename(top)}",
        title=_title(top, size),
        size=size,
        diskseq=text(f"{top}/diskseq"),
        partition=partition,
        foreign=_foreign(os.path.basename(top)),
        read_only=text(f"{where}/ro") == "1",
        parts=tuple(node for _, node in parts),
        uses=tuple(uses(numbers, holders, ours=bool(leftovers))),
        system=tuple(_system(numbers, config)),
        tombs=tuple(tomb.name for tomb in config.tombs if tomb.uuid and tomb.uuid in uuids),
        content=tuple(content),
        stage=stage,
        volume=volume,
        leftovers=tuple(leftovers),
    )


def _identify(path: str) -> tuple[str, str]:
    """The `major:minor` of the block device at `path`, and the kernel's own node for it."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ImmudError(
            f"{path}: {error.strerror}; `lsblk` shows the drives that are there"
        ) from error
    if not stat.S_ISBLK(found.st_mode):
        raise ImmudError(f"{path} is not a block device; `lsblk` shows the drives that are there")
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    name = os.path.basename(os.path.realpath(f"{SYS}/dev/block/{number}"))
    return number, f"/dev/{name}"


def title(path: str) -> str:
    """What a person knows the drive by that the block device `path` is, or is a partition of."""
    number, _ = _identify(path)
    where = os.path.realpath(f"{SYS}/dev/block/{number}")
    top = os.path.dirname(where) if os.path.exists(f"{where}/partition") else where
    return _title(top, int(text(f"{top}/size") or 0) * 512)


def _title(top: str, size: int) -> str:
    return f"{_model(top)} {human(size)}"


def _partitions(where: str) -> Iterator[tuple[str, str]]:
    for name in sorted(os.listdir(where)):
        if os.path.exists(f"{where}/{name}/partition"):
            yield text(f"{where}/{name}/dev"), f"/dev/{name}"


def _model(top: str) -> str:
    vendor, model = text(f"{top}/device/vendor"), text(f"{top}/device/model")
    name = model or text(f"{top}/device/name") or os.path.basename(top)
    # The vendor of a SATA drive is always "ATA", and of NVMe a number.
    named = vendor and vendor != "ATA" and not vendor.startswith("0x")
    return " ".join(f"{vendor} {name}".split()) if named else " ".join(name.split())


def _foreign(name: str) -> str:
    return next((what for start, what in _FOREIGN.items() if name.startswith(start)), "")


def _holders(numbers: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Mappings that an earlier run left, and who else stands on these: (number, name)."""
    leftovers, others = [], []
    for number in numbers:
        place = f"{SYS}/dev/block/{number}/holders"
        for entry in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            name = text(f"{place}/{entry}/dm/name") or entry
            if name.startswith(PREFIX) and name.endswith(MAPPING_SUFFIX):
                leftovers.append(name)
            else:
                others.append((number, name))
    return leftovers, others


def _system(numbers: dict[str, str], config: Config) -> Iterator[str]:
    """What of the running system is on the device, however many mappings are in between."""
    table = mountinfo.read()
    for path in SYSTEM:
        entry = mountinfo.top(table, path)
        if entry and stack(device_of(entry)) & set(numbers):
            yield path
    for name in ("usr", "etc", "var"):
        source: str = getattr(config, name)
        if not source.startswith("/") and stack(number_of(split(source)[0])) & set(numbers):
            yield f"the source of /{name}"


async def _signatures(node: str) -> tuple[list[str], set[str]]:
    """What wipefs(8) recognises on a device, as texts, and the UUIDs."""
    said = await run("wipefs", "--json", "--no-act", node)
    listed = json.loads(said.stdout or b"{}").get("signatures", [])
    kinds = {(each["type"], each.get("label") or "") for each in listed}
    texts = [f"{kind} ({label}) on {node}" if label else f"{kind} on {node}"
             for kind, label in sorted(kinds)]  # fmt: skip
    if not listed and _written(node):
        texts.append(
            f"data that no tool here recognises on {node} (volumes of VeraCrypt and plain "
            "dm-crypt look like that)"
        )
    return texts, {each.get("uuid") or "" for each in listed} - {""}


def _written(node: str) -> bool:
    with open(node, "rb") as file:
        return any(file.read(_LOOK))


async def _stage(
    node: str, numbers: dict[str, str], contents: list[list[str]]
) -> tuple[Stage, str]:
    """How far an earlier run came, and on which device its volume is."""
    nodes = list(numbers.values())
    if len(nodes) == 1:
        return await _marked(node), node
    table, *inner = contents
    # Only what we partitioned: one partition, of our name, and nothing but a table above it.
    ours = len(nodes) == 2 and len(table) <= 2 and await _value(nodes[1], "PART_ENTRY_NAME")
    if ours != PART_NAME:
        return Stage.NONE, node
    return (await _marked(nodes[1]) if inner[0] else Stage.FORMATTING), nodes[1]


async def _marked(node: str) -> Stage:
    said = await _value(node, "SUBSYSTEM")
    return Stage(said) if said in tuple(Stage) else Stage.NONE


async def _value(node: str, name: str) -> str:
    """One value of blkid(8)'s own look at the device; 2 is "nothing found"."""
    said = await run("blkid", "--probe", "--output", "export", node, allowed=(0, 2, 8))
    for line in said.stdout.decode(errors="replace").split("\n"):
        key, _, value = line.partition("=")
        if key == name:
            return value.replace("\\", "")
    return ""
