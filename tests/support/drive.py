"""USB drives with a LUKS container in them: made in a second, without the device-mapper.

The volume key is chosen here and handed to cryptsetup, which writes the header into a plain file;
the file system is made in another plain file, and each of its sectors is encrypted the way
dm-crypt would (aes-xts-plain64: the tweak is the sector's number, little endian). So a drive can
be made anywhere, with any content, and opens like one that was made on the machine itself.
"""

import contextlib
import os
import stat
import tempfile
import uuid as uuids
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.support.process import HarnessError, run

SECTOR = 512
PASSPHRASE = b"correct horse battery staple"
LETTER = "alice/Documents/letter.txt"
CONTENT: Mapping[str, str] = {LETTER: "a letter, carried\n", "alice/.profile": "# carried\n"}

_SMALLEST = {"ext4": 0, "btrfs": 128 << 20, "f2fs": 128 << 20, "xfs": 320 << 20}
"""What each mkfs asks for, bytes."""
_FIRST = 1 << 20
"""Where a partition begins, bytes."""


@dataclass(frozen=True)
class Drive:
    """The image of a USB drive at `path`, as a whole or, with `partuuid`, its one partition.

    `uuid` and `label` are those of the LUKS header, or of the file system where there is none;
    `serial` is the one the USB device reports.
    """

    path: Path
    uuid: str
    label: str
    serial: str
    partuuid: str = ""

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def luks(
    path: Path,
    *,
    size: int = 48 << 20,
    content: Mapping[str, str] = CONTENT,
    passphrase: bytes = PASSPHRASE,
    uuid: str = "",
    label: str = "tomb",
    serial: str = "TOMB0001",
    version: int = 2,
    partition: bool = False,
    owner: int = 1000,
    fstype: str = "ext4",
    damage: Callable[[Path], None] | None = None,
) -> Drive:
    """Make a drive of `size` bytes at `path`, opened by `passphrase`, with `content` in `fstype`.

    `content` maps file names to texts; directories and files belong to `owner`, the top
    directory to root. With `partition` the drive has a GPT and the container in its partition 1.
    `version` is LUKS's, 1 or 2 (1 has no label). The cost of the key derivation is the least
    possible, for the time of the tests. `damage` is done to the file system before it is encrypted.
    """
    size = max(size, _SMALLEST[fstype])
    uuid = uuid or str(uuids.uuid4())
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        aside = Path(place)
        container = aside / "container"
        key = os.urandom(64)
        container.touch()
        os.truncate(container, size)
        # LUKS1 has no label, and its sectors have one size.
        options = ["--label", label, "--sector-size", str(SECTOR)] if version == 2 else []
        options += ["--type", f"luks{version}", "--uuid", uuid]
        offset = _format(container, key, passphrase, options)
        plain = aside / "plain"
        tree = aside / "tree"
        _fill(tree, content, owner)
        plain.touch()
        os.truncate(plain, size - offset)
        make_file_system(plain, fstype, tree)
        if damage:
            damage(plain)
        _encrypt(plain, container, offset, key)
        partuuid = ""
        if partition:
            partuuid = _partitioned(path, container)
        else:
            container.rename(path)
    return Drive(path, uuid, label if version == 2 else "", serial, partuuid)


def plain(
    path: Path,
    *,
    label: str,
    size: int = 1 << 30,
    serial: str = "PLAIN001",
    content: Path | None = None,
) -> Drive:
    """Make a drive of `size` bytes at `path`: one ext4 file system, with what is in `content`."""
    uuid = str(uuids.uuid4())
    path.touch()
    os.truncate(path, size)
    filled = ["-d", str(content)] if content else []
    run("mkfs.ext4", "-q", "-F", "-L", label, "-U", uuid, *filled, str(path))
    return Drive(path, uuid, label, serial)


def stick(path: Path, *, label: str, size: int = 64 << 20, serial: str = "STICK001") -> Drive:
    """Make a drive of `size` bytes at `path` as they are sold: one FAT file system, empty."""
    path.touch()
    os.truncate(path, size)
    number = os.urandom(4).hex().upper()
    run("mkfs.vfat", "-n", label, "-i", number, str(path))
    return Drive(path, f"{number[:4]}-{number[4:]}", label, serial)


def _format(container: Path, key: bytes, passphrase: bytes, options: Sequence[str]) -> int:
    """Write a LUKS header for `key` into the file; returns where its data begins, bytes."""
    with tempfile.NamedTemporaryFile(dir=container.parent) as key_file:
        key_file.write(key)
        key_file.flush()
        run(
            *("cryptsetup", "luksFormat", "--batch-mode", *options),
            *("--cipher", "aes-xts-plain64", "--key-size", "512"),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"),
            # --volume-key-file from 2.4 on; both names work until now
            *("--master-key-file", key_file.name, str(container)),
            input=passphrase,
        )
    dump = run("cryptsetup", "luksDump", str(container)).stdout.splitlines()
    for line in dump:
        words = line.split()
        if words[:1] == ["offset:"] and words[2:] == ["[bytes]"]:  # LUKS2
            return int(words[1])
        if words[:2] == ["Payload", "offset:"]:  # LUKS1
            return int(words[2]) * SECTOR
    raise HarnessError("cryptsetup luksDump does not say where the data begins")


def _fill(tree: Path, content: Mapping[str, str], owner: int) -> None:
    tree.mkdir()
    for name, text in content.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for above, directories, files in os.walk(tree):
        for name in (*directories, *files):
            os.chown(Path(above) / name, owner, owner)


def make_file_system(plain: Path, fstype: str, tree: Path) -> None:
    """Make a file system with what is in `tree` in the file `plain`, labelled `home`."""
    match fstype:
        case "ext4":
            run("mkfs.ext4", "-q", "-F", "-L", "home", "-d", str(tree), str(plain))
        case "btrfs":
            run("mkfs.btrfs", "-q", "-f", "-L", "home", "--rootdir", str(tree), str(plain))
        case "f2fs":
            run("mkfs.f2fs", "-q", "-f", "-l", "home", str(plain))
            run("sload.f2fs", "-P", "-f", str(tree), str(plain))
        case "xfs":
            with tempfile.NamedTemporaryFile("w", dir=plain.parent) as prototype:
                # No boot block, and counts that are not used any more.
                prototype.write("/dev/null\n0 0\n" + _prototype(tree, "/"))
                prototype.flush()
                run("mkfs.xfs", "-q", "-f", "-L", "home", "-p", prototype.name, str(plain))
            _zero_xfs_log(plain)
        case _:
            raise HarnessError(f"no mkfs for {fstype} here")


def _zero_xfs_log(plain: Path) -> None:
    """Write the zeros of the log, which mkfs.xfs leaves to a hole: encrypted, a hole is noise.

    Where it is, the superblock says (XFS Algorithms & Data Structures, "Superblocks").
    """
    with plain.open("r+b") as file:
        head = file.read(512)
        block, first, group, blocks = (
            int.from_bytes(head[at : at + size]) for at, size in ((4, 4), (48, 8), (84, 4), (96, 4))
        )
        shift = head[124]
        start = ((first >> shift) * group + (first & ((1 << shift) - 1))) * block
        file.seek(start)
        log = file.read(blocks * block)
        file.seek(start)
        file.write(log)


def _prototype(path: Path, name: str) -> str:
    """A tree as the protofile of mkfs.xfs(8) has it."""
    found = path.lstat()
    kind, mode = ("d" if path.is_dir() else "-"), stat.S_IMODE(found.st_mode)
    line = f"{name} {kind}--{mode:03o} {found.st_uid} {found.st_gid}".removeprefix("/ ")
    if kind == "-":
        return f"{line} {path}\n"
    below = "".join(_prototype(entry, entry.name) for entry in sorted(path.iterdir()))
    return f"{line}\n{below}$\n"


def _encrypt(plain: Path, container: Path, offset: int, key: bytes) -> None:
    """Put `plain` into `container` from `offset` on. Holes stay: nothing reads them."""
    with plain.open("rb") as source, container.open("r+b") as target:
        size = os.fstat(source.fileno()).st_size
        end = 0
        while True:
            try:
                begin = os.lseek(source.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: no data after this
                return
            end = min(os.lseek(source.fileno(), begin, os.SEEK_HOLE), size)
            source.seek(begin)
            target.seek(offset + begin)
            for number in range(begin // SECTOR, end // SECTOR):
                tweak = number.to_bytes(16, "little")
                sector = Cipher(algorithms.AES(key), modes.XTS(tweak)).encryptor()
                target.write(sector.update(source.read(SECTOR)) + sector.finalize())


def _partitioned(path: Path, container: Path) -> str:
    """Put `container` into the one partition of a GPT on a new image; returns its PARTUUID."""
    size = container.stat().st_size
    path.touch()
    os.truncate(path, _FIRST + size + _FIRST)
    partuuid = str(uuids.uuid4())
    sectors = f"start={_FIRST // SECTOR}, size={size // SECTOR}, uuid={partuuid}\n"
    run("sfdisk", "--quiet", str(path), input=f"label: gpt\n{sectors}")
    run(
        *("dd", "status=none", "conv=notrunc,sparse", "bs=1M", f"seek={_FIRST >> 20}"),
        *(f"if={container}", f"of={path}"),
    )
    return partuuid
