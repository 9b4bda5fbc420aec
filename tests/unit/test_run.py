"""The one gate for subprocesses, and the one for blocking calls: real children, nothing mocked."""

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.child import ChildTimeout, Standby, early_from_child, in_child
from immud.errors import Busy
from immud.run import CommandFailed, CommandTimeout, run


def children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> object:
    fds, pids = set(os.listdir("/proc/self/fd")), children()
    yield
    assert children() == pids
    assert set(os.listdir("/proc/self/fd")) <= fds


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_output_and_status() -> None:
    result = await run("sh", "-c", "echo out; echo err >&2; exit 3", allowed=(0, 3))
    assert (result.code, result.stdout, result.stderr) == (3, b"out\n", "err\n")


async def test_failure_says_what_the_program_said() -> None:
    with pytest.raises(CommandFailed, match=r"^sh ended with status 4: two$") as caught:
        await run("sh", "-c", "echo one >&2; echo two >&2; exit 4")
    assert caught.value.code == 4
    with pytest.raises(CommandFailed, match=r"signal SIGKILL"):
        await run("sh", "-c", "kill -9 $$")
    with pytest.raises(CommandFailed, match="No such file"):
        await run("/nonexistent/program")


async def test_the_secret_arrives_and_can_be_opened_as_a_file() -> None:
    secret = bytes(range(256)) * 2
    assert (await run("cat", "/dev/stdin", stdin=secret)).stdout == secret
    assert (await run("cat")).stdout == b""


async def test_the_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_NOT", "x")
    out = (await run("env", environment={"EXTRA": "1"})).stdout.decode().split("\n")
    assert "LC_ALL=C" in out
    assert "EXTRA=1" in out
    assert not any(line.startswith("LD_PRELOAD_NOT") for line in out)


async def test_no_descriptor_of_ours_is_inherited() -> None:
    held = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 777)
    try:
        out = (await run("ls", "/proc/self/fd")).stdout.split()
    finally:
        os.close(held)
    assert b"0" in out
    assert str(held).encode() not in out


async def test_more_output_than_is_kept_does_not_block() -> None:
    result = await run("head", "-c", "1000000", "/dev/zero")
    assert (result.code, len(result.stdout)) == (0, 65536)


async def test_timeout_ends_the_whole_group() -> None:
    script = "sleep 100 & echo $! ; trap '' TERM; sleep 100"
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"0\.2 seconds"):
        await run("sh", "-c", script, timeout=0.2)
    assert time.monotonic() - began < 2


async def test_cancelling_ends_the_group_and_the_grandchild() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    script = f"sleep 100 & echo $! >/proc/{os.getpid()}/fd/{writing}; wait"
    task = asyncio.create_task(run("sh", "-c", script))
    pid = int(await asyncio.to_thread(os.read, reading, 20))
    assert not gone(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.close(reading)
    os.close(writing)
    for _ in range(100):
        if gone(pid):
            break
        await asyncio.sleep(0.01)
    assert gone(pid)


async def test_the_loop_goes_on_meanwhile() -> None:
    async def ticks() -> int:
        count = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await asyncio.sleep(0.01)
                    count += 1
        return count

    _, count = await asyncio.gather(run("sleep", "0.3"), ticks())
    assert count > 10


def _many() -> list[int]:
    return list(range(100_000))


def _refused() -> None:
    raise FileNotFoundError(2, "No such file or directory", "/there")


def _explained() -> None:
    raise Busy("because")


def _broken() -> None:
    raise ZeroDivisionError


def _asleep() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(100)


async def test_a_child_s_value_and_errors_arrive() -> None:
    assert await in_child(_many) == _many()
    with pytest.raises(FileNotFoundError, match="/there"):
        await in_child(_refused)
    with pytest.raises(Busy, match="because"):
        await in_child(_explained)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        await in_child(_broken)


def _early(tell: Callable[[object], None], mark: str, answer: object) -> str:
    tell(answer)
    time.sleep(0.3)
    Path(mark).touch()
    return "not this"


async def test_a_child_may_answer_before_it_is_done(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert await early_from_child(_early, str(mark), "this") == "this"
    assert not mark.exists()
    await asyncio.sleep(0.5)
    assert mark.exists(), "it was left to finish"
    with pytest.raises(Busy, match="because"):
        await early_from_child(_early, str(mark), Busy("because"))
    await asyncio.sleep(0.4)


prepared: list[str] = []


def _told(tell: Callable[[object], None], *words: str) -> None:
    if "refuse" in words:
        tell(Busy("because"))
    tell([*prepared, *words])


def _ready() -> None:
    prepared.append("ready")


async def test_a_child_may_stand_by_for_what_is_known_later() -> None:
    before = children()
    assert await Standby(_ready, _told).perform("to", "go") == ["ready", "to", "go"]
    with pytest.raises(Busy, match="because"):
        await Standby(_ready, _told).perform("refuse")
    # That it could not make ready is no reason not to do it.
    assert await Standby(_broken, _told).perform("anyway") == ["anyway"]
    await _ended(before)


async def test_a_child_that_stood_by_for_nothing_ends() -> None:
    before = children()
    standby = Standby(_ready, _told)
    (pid,) = children() - before
    # It holds the other end of what the first one reads.
    later = Standby(_ready, _told)
    standby.dismiss()
    await _ended(before | children() - {pid})
    later.dismiss()
    await _ended(before)


async def test_in_place_of_a_child_that_was_killed_another_does_it() -> None:
    before = children()
    standby = Standby(_ready, _told)
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    await _ended(before)
    assert await standby.perform("again") == ["again"]
    # Nor does one that is there hear more than it can be told at once.
    key = "k" * (1 << 20)
    assert await Standby(_ready, _told).perform(key) == [key]
    await _ended(before)


async def test_a_child_that_stands_by_ends_with_its_parent() -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        asyncio.run(_die_with_a_child(writing))
    os.close(writing)
    os.waitpid(parent, 0)
    pid = int(os.read(reading, 16))
    os.close(reading)
    async with asyncio.timeout(10):
        while not gone(pid):
            await asyncio.sleep(0.01)


async def _die_with_a_child(writing: int) -> None:
    Standby(_ready, _told)
    os.write(writing, str(*children()).encode())
    os._exit(0)


async def _ended(left: set[int]) -> None:
    async with asyncio.timeout(10):
        while children() - left:
            await asyncio.sleep(0.01)


async def test_a_child_that_sleeps_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(ChildTimeout):
        await in_child(_asleep, timeout=0.2)
    task = asyncio.create_task(in_child(_asleep))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 2


async def test_a_signal_to_the_child_is_not_taken_for_ours() -> None:
    told: list[int] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.append, 1)
    try:
        with pytest.raises(RuntimeError, match="killed"):
            await in_child(_suicide)
        await asyncio.sleep(0.05)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert told == []


def _suicide() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
