"""Mounting, holding and taking away a real file system, in namespaces of the tests' own."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.errors import ImmudError
from immud.tomb import holders, loops
from immud.tomb.fs import mounts
from immud.tomb.holders import Holders, pair
from tests.support.filesystems import FORCE, SIZES
from tests.support.namespaces import in_namespace
from tests.support.process import standing


def make_image(path: Path, fstype: str = "ext4") -> str:
    with path.open("wb") as file:
        file.truncate(SIZES[fstype])
    subprocess.run([f"mkfs.{fstype}", "-q", FORCE[fstype], str(path)], check=True)
    return str(path)


@contextmanager
def loop_device(image: str) -> Iterator[str]:
    command = ["losetup", "--find", "--show", image]
    node = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield node
    finally:
        subprocess.run(["losetup", "--detach", node], check=True)


@contextmanager
def tomb(
    tmp_path: Path, options: tuple[str, ...] = (), fstype: str = "ext4"
) -> Iterator[tuple[str, str]]:
    """A file system at a place of its own: (where, `major:minor`)."""
    target = str(tmp_path / "var" / "home")
    with loop_device(make_image(tmp_path / "image", fstype)) as node:
        mounts.mount(node, fstype, target, list(options))
        entry = top(mountinfo.read(), target)
        assert entry
        try:
            yield target, entry.dev
        finally:
            mounts.take_away([entry.dev], kernel.MNT_DETACH)


def find(number: str, *, namespaces: bool = False) -> Holders:
    return asyncio.run(holders.find([pair(number)], namespaces=namespaces))


def process(code: str, *arguments: str) -> AbstractContextManager[int]:
    """A process that runs `code`, says so, and stays."""
    return standing(f"import os, sys, mmap, signal, ctypes, time\n{code}", *arguments)


@in_namespace
def test_mounted_whole_with_nosuid_and_nodev(tmp_path: Path) -> None:
    with tomb(tmp_path, ("noatime", "errors=remount-ro")) as (target, _):
        entry = top(mountinfo.read(), target)
        assert entry
        assert entry.options == "rw,nosuid,nodev,noatime"
        assert "errors=remount-ro" in entry.super_options


@in_namespace
def test_the_mount_propagates_to_who_looks_on(tmp_path: Path) -> None:
    kernel.mount_setattr("/", propagation=kernel.MS_SHARED, recursive=True)
    with process(
        "libc = ctypes.CDLL(None); libc.unshare(0x20000)\n"
        "libc.mount(None, b'/', None, 0x4000 | 1 << 19, None)"
    ) as pid:
        with tomb(tmp_path) as (target, _):
            assert top(mountinfo.read(pid), target)
        assert top(mountinfo.read(pid), target) is None


@in_namespace
def test_what_it_hides_is_told(tmp_path: Path) -> None:
    with loop_device(make_image(tmp_path / "image")) as node:
        empty, full = tmp_path / "empty", tmp_path / "full"
        full.mkdir()
        (full / "letter").write_text("dear")
        assert mounts.mount(node, "ext4", str(empty), []) is False
        kernel.umount2(str(empty))
        assert mounts.mount(node, "ext4", str(full), []) is True
        kernel.umount2(str(full))
        assert (full / "letter").read_text() == "dear"


@in_namespace
def test_a_failure_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    before = mountinfo.read()
    with loop_device(make_image(tmp_path / "image")) as node:
        for options in (["nosuchoption"], ["suid"]):
            with pytest.raises(ImmudError, match=r"nosuchoption|suid"):
                mounts.mount(node, "ext4", str(tmp_path / "x"), options)
        with pytest.raises(ImmudError, match="cannot be mounted as xfs"):
            mounts.mount(node, "xfs", str(tmp_path / "x"), [])
    assert mountinfo.read() == before


WAYS = {
    "cwd": "os.chdir(sys.argv[1])",
    "open file": "held = open(sys.argv[1] + '/file', 'w')",
    "mapped file": (
        "fd = os.open(sys.argv[1] + '/file', os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 4096)\n"
        "held = mmap.mmap(fd, 4096); os.close(fd)\n"
        # The module keeps a descriptor of its own: close whatever leads there.
        "[os.close(int(n)) for n in os.listdir('/proc/self/fd') if int(n) > 2\n"
        "  and os.path.exists(f'/proc/self/fd/{n}')\n"
        "  and os.readlink(f'/proc/self/fd/{n}').endswith('/file')]"
    ),
    "root": "os.chroot(sys.argv[1])",
}


@pytest.mark.parametrize("how", WAYS)
def test_holders_are_found_however_they_hold(tmp_path: Path, how: str) -> None:
    @in_namespace
    def test() -> None:
        with tomb(tmp_path) as (target, number):
            assert not find(number)
            with process(WAYS[how], target) as pid, process("") as bystander:
                (found,) = find(number).values
                assert (found.pid, found.how, found.uid) == (pid, how, 0)
                assert found.command.startswith("python")
                assert found.pid != bystander
                # Who searches is not found, whatever it holds; the drive is not worth the daemon.
                os.chdir(target)
                assert [h.pid for h in find(number).values] == [pid]
                os.chdir("/")
            mounts.take_away([number])

    test()


@in_namespace
def test_a_program_run_from_it_holds_it(tmp_path: Path) -> None:
    with tomb(tmp_path, ("exec",)) as (target, number):
        subprocess.run(["cp", "/bin/sleep", target], check=True)
        sleep = subprocess.Popen([f"{target}/sleep", "100"])
        try:
            assert [(h.pid, h.how) for h in find(number).values] == [(sleep.pid, "exe")]
        finally:
            sleep.kill()
            sleep.wait()


@in_namespace
def test_holders_that_do_not_listen_are_ended(tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.chdir(sys.argv[1])"

    async def end(number: int, seconds: float) -> bool:
        found = await holders.find([pair(dev)])
        assert [h.pid for h in found.values] == [pid]
        return await found.end(number, seconds)

    with tomb(tmp_path) as (target, dev), process(deaf, target) as pid, process("") as bystander:
        with pytest.raises(OSError, match="busy"):
            mounts.take_away([dev])
        assert asyncio.run(end(signal.SIGTERM, 0.3)) is False
        assert asyncio.run(end(signal.SIGKILL, 5)) is True
        assert not find(dev)
        assert mounts.take_away([dev]) == 1
        os.kill(bystander, 0)


@in_namespace
def test_all_mounts_of_it_go_with_what_is_on_them(tmp_path: Path) -> None:
    with tomb(tmp_path) as (target, number):
        os.mkdir(f"{target}/inner")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        kernel.mount(target, str(elsewhere), None, kernel.MS_BIND)
        kernel.mount("tmpfs", f"{target}/inner", "tmpfs", 0)
        with pytest.raises(OSError, match="busy"):
            mounts.take_away([number])
        mounts.take_away([number], kernel.MNT_DETACH)
        left = [e.target for e in mountinfo.read() if e.target.startswith(str(tmp_path))]
        assert left == []


@in_namespace
def test_overlays_on_it_go_too(tmp_path: Path) -> None:
    with tomb(tmp_path) as (target, number):
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{target}/{name}")
        merged = tmp_path / "merged"
        merged.mkdir()
        layers = f"lowerdir={target}/lower,upperdir={target}/upper,workdir={target}/work"
        kernel.mount("overlay", str(merged), "overlay", 0, layers)
        mounts.take_away([number], kernel.MNT_DETACH)
        assert top(mountinfo.read(), str(merged)) is None


LAYERS = [
    "lowerdir={base}:{tomb}/lower",
    "lowerdir={tomb}:{base}",
    "lowerdir={base}\\:there:{tomb}/lower:{base}",
    "lowerdir+={base},lowerdir+={tomb}/lower",
]


@pytest.mark.parametrize("layers", LAYERS)
def test_an_overlay_goes_too_whichever_layer_is_on_it(tmp_path: Path, layers: str) -> None:
    @in_namespace
    def test() -> None:
        with tomb(tmp_path) as (target, number):
            base = f"{target}s"
            for path in (base, f"{base}:there", f"{target}/lower", str(tmp_path / "merged")):
                os.mkdir(path)
            at = str(tmp_path / "merged")
            kernel.mount("overlay", at, "overlay", 0, layers.format(base=base, tomb=target))
            mounts.take_away([number], kernel.MNT_DETACH)
            assert top(mountinfo.read(), at) is None
            # Of a directory whose name merely begins like that of the tomb.
            options = f"lowerdir={base}:{base}\\:there"
            kernel.mount("overlay", at, "overlay", 0, options)
            assert mounts.take_away([number], kernel.MNT_DETACH) == 0
            assert top(mountinfo.read(), at)

    test()


@in_namespace
def test_copies_in_other_namespaces_go_too(tmp_path: Path) -> None:
    private = (
        "libc = ctypes.CDLL(None); libc.unshare(0x20000)\n"
        "libc.mount(None, b'/', None, 0x4000 | 1 << 18, None)"
    )
    with tomb(tmp_path) as (target, number), process(private) as pid:
        assert mounts.take_away([number]) == 1
        assert top(mountinfo.read(pid), target)
        assert [h.how for h in find(number, namespaces=True).values] == ["mount namespace"]
        ours = os.readlink("/proc/self/ns/mnt")
        count = asyncio.run(in_child(mounts.take_away_elsewhere, [number], kernel.MNT_DETACH))
        assert count == 1
        assert top(mountinfo.read(pid), target) is None
        assert os.readlink("/proc/self/ns/mnt") == ours


@in_namespace
def test_the_root_of_a_container_on_it_goes_too(tmp_path: Path) -> None:
    pivoted = (
        "libc = ctypes.CDLL(None); libc.unshare(0x20000); os.chdir(sys.argv[1])\n"
        "libc.mount(None, b'/', None, 0x4000 | 1 << 18, None)\n"
        "assert libc.pivot_root(b'.', b'.') == 0; libc.umount2(b'.', 2)"
    )
    with tomb(tmp_path) as (target, number), process(pivoted, target) as pid:
        mounts.take_away([number], kernel.MNT_DETACH)
        assert top(mountinfo.read(pid), "/")
        count = asyncio.run(in_child(mounts.take_away_elsewhere, [number], kernel.MNT_DETACH))
        assert count == 1
        assert top(mountinfo.read(pid), "/") is None


@in_namespace
def test_loop_devices_on_it_are_found_through_all_layers(tmp_path: Path) -> None:
    with tomb(tmp_path) as (target, number):
        with loop_device(make_image(tmp_path / "unrelated")) as other:
            inner = Path(target) / "inner"
            with inner.open("wb") as file:
                file.truncate(8 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(inner)], check=True)
            command = ["losetup", "--find", "--show", str(inner)]
            node = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rdev = os.stat(node.strip()).st_rdev
            first = f"{os.major(rdev)}:{os.minor(rdev)}"
            mounts.mount(node.strip(), "ext4", str(tmp_path / "in"), [])
            second = make_image(tmp_path / "in" / "deeper")
            node = subprocess.run(
                [*command[:-1], second], check=True, capture_output=True, text=True
            ).stdout
            rdev = os.stat(node.strip()).st_rdev
            stacked = loops.stack([number])
            assert stacked == [number, first, f"{os.major(rdev)}:{os.minor(rdev)}"]
            assert os.stat(other).st_rdev not in stacked
        mounts.take_away(stacked, kernel.MNT_DETACH)
        assert loops.detach(stacked[1:]) == 2
        assert loops.stack([number]) == [number]
