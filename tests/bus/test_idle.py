"""A daemon with nothing to do: how much memory it holds, and that it sleeps."""

import asyncio
import re
from pathlib import Path

from tests.bus.private import PrivateBus

PSS_MAX = 20 * 1024
"""kB, of the 22 MB the whole daemon may have: the rest is for what it knows of volumes."""
UNWANTED = ("libgirepository", "libssl", "libcrypto", "libxml2")


async def test_memory_and_wakeups(bus: PrivateBus) -> None:
    await bus.start()
    peer = await bus.peer("idle_peer.py")
    await bus.busctl("introspect", "org.immud1", "/org/immud1")
    proc = Path(f"/proc/{peer.pid}")
    assert number(proc / "smaps_rollup", "Pss") <= PSS_MAX
    libraries = (proc / "maps").read_text()
    assert [name for name in UNWANTED if name in libraries] == []
    before = number(proc / "status", "voluntary_ctxt_switches")
    for number_of_file in range(4):
        await asyncio.sleep(1)
        # What others do where the socket is does not concern a daemon that is connected.
        Path(bus.directory, f"file{number_of_file}").touch()
    # One may be the kernel's doing; anything that comes round would be four.
    assert number(proc / "status", "voluntary_ctxt_switches") <= before + 1


def number(path: Path, field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+)", path.read_text(), re.MULTILINE)
    assert match, path
    return int(match[1])
