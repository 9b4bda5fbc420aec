"""A file system of a server that stops answering, as a network's does when the cable is pulled.

One directory with one file of zeros in it, served over /dev/fuse (linux/fuse.h, version 7.31).
"""

import errno
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from immud.early import kernel

SIZE = 1 << 20
_IN = struct.Struct("=IIQQ16x")
_OUT = struct.Struct("=IiQ")
_ATTRIBUTES = struct.Struct("=6Q10I")


class Op(IntEnum):
    """enum fuse_opcode, as far as it is answered, or must not be."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


def _attributes(node: int) -> bytes:
    mode, size = (stat.S_IFDIR | 0o755, 0) if node == 1 else (stat.S_IFREG | 0o644, SIZE)
    return _ATTRIBUTES.pack(node, size, size // 512, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, body: bytes, valid: int) -> tuple[int, bytes]:
    error, answer = 0, b""
    match opcode:
        case Op.INIT:
            limits = (1 << 16, 0, 8, 8, 1 << 16, 1, 0, 0, 0)
            answer = struct.pack("=4I2HII2HI28x", 7, 31, *limits)
        case Op.LOOKUP if body == b"file\0":
            answer = struct.pack("=4Q2I", 2, 0, valid, 0, 0, 0) + _attributes(2)
        case Op.LOOKUP:
            error = errno.ENOENT
        case Op.GETATTR:
            answer = struct.pack("=Q2I", 0, 0, 0) + _attributes(node)
        case Op.OPEN | Op.OPENDIR:
            answer = bytes(16)
        case Op.READ:
            answer = bytes(struct.unpack_from("=QQI", body)[2])
        case Op.RELEASE | Op.RELEASEDIR:
            pass
        case _:
            error = errno.ENOSYS
    return error, answer


def _serve(fd: int, valid: int) -> None:
    silent: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: silent.append(number))
    while True:
        data = os.read(fd, 1 << 18)
        _, opcode, unique, node = _IN.unpack_from(data)
        if silent or opcode in (Op.FORGET, Op.INTERRUPT, Op.BATCH_FORGET):
            continue
        error, answer = _answer(opcode, node, data[_IN.size :], valid)
        os.write(fd, _OUT.pack(_OUT.size + len(answer), -error, unique) + answer)


@contextmanager
def server(where: str, owner: int = 0, valid: int = 60) -> Iterator[Callable[[], None]]:
    """Mount it at `where`; what is given makes it silent, which lasts until the block ends.

    Nobody but `owner` may look into it. What it said of the file it is asked again after so many
    seconds (`valid`).
    """
    os.makedirs(where, exist_ok=True)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id={owner},group_id=0"
    kernel.mount("server", where, "fuse", 0, options)
    pid = os.fork()
    if pid == 0:
        try:
            _serve(fd, valid)
        finally:
            os._exit(1)
    os.close(fd)
    # Told that it has no FLUSH the kernel asks for none again, and whoever ends can end.
    if not owner:
        os.close(os.open(f"{where}/file", os.O_RDONLY))
    try:
        yield lambda: os.kill(pid, signal.SIGUSR1)
    finally:
        # Whoever waits for an answer gets an error now.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kernel.umount2(where, kernel.MNT_DETACH)
