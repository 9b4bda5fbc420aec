"""A disk with a write cache, from which a power cut takes what was not flushed.

QEMU writes its disks into the page cache of the host, which outlives QEMU: to kill it loses
nothing. This disk keeps every write in memory until its machine flushes, as a drive does. When the
power goes, chance decides of each write since the last flush whether it had reached the
medium, in whatever order, or some of its sectors only.

QEMU reaches it as a network block device on a socket (the protocol is NBD's doc/proto.md). A
process of its own serves it: `Disk` starts that one, and tells it after how many writes
the power is to go.
"""

import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.cache import CHECKOUT
from tests.support.container import die_with_parent
from tests.support.process import PATH, HarnessError

SECTOR = 512
"""What is written as a whole or not at all, bytes."""


class Medium:
    """The file descriptor `file`, with a cache of writes in front of it."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.size = os.fstat(file).st_size
        self._writes: list[tuple[int, bytes]] = []
        self._newest: dict[int, bytes] = {}

    def read(self, at: int, size: int) -> bytes:
        """What is there: from the cache, or from the medium."""
        found = bytearray(os.pread(self._file, size, at))
        if self._newest:
            for offset in range(0, size, SECTOR):
                if sector := self._newest.get(at + offset):
                    found[offset : offset + SECTOR] = sector
        return bytes(found)

    def write(self, at: int, data: bytes) -> None:
        """Put it into the cache. Whole sectors."""
        self._writes.append((at, data))
        self._newest.update(_sectors(at, data))

    def flush(self) -> None:
        """Have all that was written on the medium."""
        for at, data in self._writes:
            os.pwrite(self._file, data, at)
        self._forget()

    def lose_power(self, seed: str) -> int:
        """Write of the cache what chance lets pass, forget the rest; how much that was, bytes."""
        chance = random.Random(seed)  # noqa: S311 the same writes, the same loss
        lost = 0
        passing = chance.random()  # how far behind the machine the disk was
        for at, data in self._writes:
            kind = chance.random()
            torn = kind > passing and chance.random() < 0.25
            for offset, sector in _sectors(at, data).items():
                if kind < passing or (torn and chance.random() < 0.5):
                    os.pwrite(self._file, sector, offset)
                else:
                    lost += len(sector)
        self._forget()
        return lost

    def _forget(self) -> None:
        self._writes.clear()
        self._newest.clear()


def _sectors(at: int, data: bytes) -> dict[int, bytes]:
    return {at + begin: data[begin : begin + SECTOR] for begin in range(0, len(data), SECTOR)}


class Disk:
    """The disk in the file `path`, plugged into a machine by `node`, until that machine ends.

    `socket_path` is where the two meet. The same `seed` loses the same of the same writes.
    """

    def __init__(self, path: Path, socket_path: Path, seed: str) -> None:
        self._socket = socket_path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.lossy", str(path), str(socket_path), seed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=CHECKOUT,
            env={"PATH": PATH},
            preexec_fn=die_with_parent,  # noqa: PLW1509 no threads here
        )
        self._told(30)

    @property
    def node(self) -> dict[str, Any]:
        """QEMU's options for a block device on this disk."""
        return {"driver": "nbd", "server": {"type": "unix", "path": str(self._socket)}}

    def cut_after(self, writes: int) -> None:
        """Take nothing more, answer nothing more, once there were so many more writes."""
        assert self._process.stdin
        self._process.stdin.write(b"%d\n" % writes)

    def is_cut(self, timeout: float) -> bool:
        """Whether that has come, or does within `timeout` seconds."""
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], timeout)[0])

    def settle(self) -> dict[str, int]:
        """After the machine has ended: what there was of `writes` and `flushes`, and bytes `lost`.

        `since` is how many writes there were after `cut_after` was said.
        """
        told = {}
        while "lost" not in told:
            told = self._told(60)
        self.kill()
        return told

    def kill(self) -> None:
        """End its process, whatever it is at."""
        self._process.kill()
        self._process.communicate()

    def _told(self, timeout: float) -> dict[str, int]:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise HarnessError(f"the disk at {self._socket} does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise HarnessError(f"the disk at {self._socket} has ended by itself")
        told: dict[str, int] = json.loads(line)
        return told


# What follows runs in the process of its own. The names are the protocol's.

_IHAVEOPT = 0x49484156454F5054
_REPLY_MAGIC = 0x3E889045565A9
_OPT_ABORT, _OPT_GO = 2, 7
_REP_ACK, _REP_INFO, _REP_ERR_UNSUP = 1, 3, (1 << 31) + 1
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_FLAG_HAS_FLAGS, _FLAG_SEND_FLUSH = 1 << 0, 1 << 2
_CMD_READ, _CMD_WRITE, _CMD_DISC, _CMD_FLUSH = range(4)
_MOST = 32 << 20


class _Gone(Exception):
    """The machine has ended."""


class _Server:
    """One conversation about `medium` over `peer`."""

    def __init__(self, medium: Medium, peer: socket.socket) -> None:
        self._medium, self._peer = medium, peer
        self._left: int | None = None
        self.writes = self.flushes = self.since = 0

    def _take(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            more = self._peer.recv(size - len(taken))
            if not more:
                raise _Gone
            taken += more
        return bytes(taken)

    def negotiate(self) -> None:
        """Until the machine has chosen the one export there is."""
        self._peer.sendall(b"NBDMAGIC" + struct.pack(">QH", _IHAVEOPT, 1))
        self._take(4)
        while True:
            _, option, size = struct.unpack(">QII", self._take(16))
            self._take(size)
            if option == _OPT_GO:
                flags = _FLAG_HAS_FLAGS | _FLAG_SEND_FLUSH
                self._reply(option, _REP_INFO, ">HQH", _INFO_EXPORT, self._medium.size, flags)
                self._reply(option, _REP_INFO, ">HIII", _INFO_BLOCK_SIZE, SECTOR, 4096, _MOST)
                self._reply(option, _REP_ACK, "")
                return
            self._reply(option, _REP_ACK if option == _OPT_ABORT else _REP_ERR_UNSUP, "")

    def _reply(self, option: int, kind: int, form: str, *values: int) -> None:
        data = struct.pack(form, *values)
        self._peer.sendall(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)

    def serve(self) -> None:
        """Until the power goes, or the machine ends."""
        while self._left != 0:
            ready, _, _ = select.select([self._peer, sys.stdin], [], [])
            if sys.stdin in ready:
                told = os.read(0, 64)
                self._left = int(told) if told else None
            if self._peer in ready:
                self._one()
        _tell(writes=self.writes)
        while self._peer.recv(1 << 20):
            pass  # nobody hears it

    def _one(self) -> None:
        _, _, command, cookie, at, size = struct.unpack(">IHHQQI", self._take(28))
        answer = b""
        if command == _CMD_READ:
            answer = self._medium.read(at, size)
        elif command == _CMD_WRITE:
            self._medium.write(at, self._take(size))
            self.writes += 1
            if self._left is not None:
                self._left -= 1
                self.since += 1
        elif command == _CMD_FLUSH:
            self._medium.flush()
            self.flushes += 1
        elif command == _CMD_DISC:
            raise _Gone
        else:
            raise ValueError(f"command {command} was not announced")
        self._peer.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + answer)


def _tell(**numbers: int) -> None:
    print(json.dumps(numbers), flush=True)


def _main(path: str, socket_path: str, seed: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening, Path(path).open("r+b") as file:
        listening.bind(socket_path)
        listening.listen()
        _tell()
        peer, _ = listening.accept()
        Path(socket_path).unlink()
        medium = Medium(file.fileno())
        server = _Server(medium, peer)
        try:
            server.negotiate()
            server.serve()
        except (_Gone, ConnectionError):
            pass
        lost = medium.lose_power(seed)
        _tell(writes=server.writes, flushes=server.flushes, since=server.since, lost=lost)


if __name__ == "__main__":
    _main(*sys.argv[1:])
