"""The tripwire in a booted system: each kind of tampering for real, and days without any."""

import json
import statistics
import time
from typing import Any

import pytest

from tests.support.container import Container
from tests.support.process import Completed

PROBLEM, TAMPERED, MENDED, RELOCKED = (
    "c96abf705bfe4d839802d2f8fb3f6550",
    "6c5c1e5da8504854908432a81e2441df",
    "b84036c5db194e89a56f4ca7505b1e21",
    "7df08dfa4bad4f50a0807fca52a9fb89",
)
SLOWLY = "[Service]\nEnvironment=IMMUD_MOUNTINFO=1\n"
RELOCK = '[tripwire]\nallow = ["/data"]\n[tripwire.paths]\n"/usr" = "relock"\n'
PATIENCE = 5.0
"""Seconds until a finding has to be there, on a machine that does a hundred other things."""

OPEN, SHUT = "mount -o remount,bind,rw /", "mount -o remount,bind,ro /"

# What is done to the system, how it is mended, and the finding it has to be: kind and path.
# A tmpfs over /usr would take umount(8) with it, so another /usr is an overlay of the same.
TAMPERINGS = {
    "writable": (
        "mount -o remount,bind,rw /usr",
        "mount -o remount,bind,ro /usr",
        ("writable", "/usr"),
    ),
    "root": (OPEN, SHUT, ("writable", "/")),
    "unmounted": (
        "mkdir -p /run/etc; mount --bind /etc /run/etc; umount -l /etc",
        "mount --bind /run/etc /etc",
        ("unmounted", "/etc"),
    ),
    "over": (
        "mount -t overlay x -o lowerdir=/usr:/var/empty /usr",
        "umount -l /usr",
        ("over-mounted", "/usr"),
    ),
    "over a part": (
        "mount -t tmpfs x /usr/share/man",
        "umount /usr/share/man",
        ("over-mounted", "/usr/share/man"),
    ),
    "way in": (
        "mount --bind / /var/empty; mount -o remount,bind,rw /var/empty",
        "umount /var/empty",
        ("way-in", "/var/empty"),
    ),
    "new": ("mount -t tmpfs x /other", "umount /other", ("new-mount", "/other")),
    "link": (
        f"{OPEN}; ln -sfn var/else /srv; {SHUT}",
        f"{OPEN}; ln -sfn var/srv /srv; {SHUT}",
        ("link", "/srv"),
    ),
}

# Prints every finding that is raised, with the time it is heard of.
_LISTENER = """
import asyncio, sys, time
sys.path.append("/usr/lib/python3/dist-packages")
from immud.client import Client
async def main():
    async with Client() as client:
        signals = await client.subscribe()
        print("ready", flush=True)
        async for signal in signals:
            if signal.member == "FindingRaised":
                print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), signal.body[3], flush=True)
asyncio.run(main())
"""

# Two reconcile jobs at once, until they are done.
_RECONCILE = """
import asyncio, sys
sys.path.append("/usr/lib/python3/dist-packages")
from immud.client import Client
async def main():
    async with Client() as client:
        jobs = await asyncio.gather(*(client.reconcile() for _ in range(2)))
        await asyncio.gather(*map(client.wait, jobs))
asyncio.run(main())
"""

# Ten times writable and back, with the time of each.
_WRITABLE = """
import sys, time
sys.path.append("/usr/lib/python3/dist-packages")
from immud.early import kernel
for number in range(10):
    print(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    kernel.mount_setattr("/usr", clear=1)
    for _ in range(1000):
        time.sleep(0.02)
        if len(open("/run/told").readlines()) >= number + 2:
            break
    kernel.mount_setattr("/usr", set_=1)
    time.sleep(0.1)
"""


@pytest.fixture
def machine(adopted_container: Container) -> Container:
    """An adopted system, off, with a directory at / and one for mounts."""
    adopted_container.disk.run("mkdir", "-p", "/other", "/data", "/var/empty")
    return adopted_container


def boot(machine: Container) -> None:
    machine.boot()
    assert machine.system_state() == "running"
    assert verify(machine).status == 0, verify(machine).stdout


def verify(machine: Container, *arguments: str) -> Completed:
    return machine.run("immud", "verify", *arguments, check=False, user="alice")


def ask(machine: Container, *arguments: str) -> Any:
    """What busctl says to a user who may change nothing."""
    answer = machine.run("busctl", "--json=short", *arguments, user="alice").stdout
    return json.loads(answer)["data"]


MANAGER = ("org.immud1", "/org/immud1", "org.immud1.Manager")


def findings(machine: Container) -> set[tuple[str, str]]:
    (listed,) = ask(machine, "call", *MANAGER, "ListFindings")
    return {(kind, path) for _, kind, path, _ in listed}


def become(machine: Container, wanted: set[tuple[str, str]]) -> None:
    """Wait for exactly these findings, which takes milliseconds where nothing else runs."""
    until = time.monotonic() + PATIENCE
    while (found := findings(machine)) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    assert found == wanted


def told(machine: Container, message_id: str) -> list[dict[str, str]]:
    machine.run("journalctl", "--sync")
    return machine.journal("-b", f"MESSAGE_ID={message_id}")


def tamper(machine: Container, *names: str) -> None:
    """Each kind by itself: seen by a user who may change nothing, and gone when mended."""
    for name in names:
        change, mend, finding = TAMPERINGS[name]
        machine.run("sh", "-c", change)
        become(machine, {finding})
        assert ask(machine, "get-property", *MANAGER, "Integrity") == "violated"
        assert ask(machine, "get-property", *MANAGER, "State") == "degraded"
        machine.run("sh", "-c", mend)
        become(machine, set())
    assert ask(machine, "get-property", *MANAGER, "Integrity") == "intact"
    expected = {TAMPERINGS[name][2] for name in names}
    # A link can be changed only where / is writable, which is a finding of its own.
    beside = {("writable", "/")}
    for message_id in (TAMPERED, MENDED):
        said = {(entry["IMMUD_KIND"], entry["IMMUD_PATH"]) for entry in told(machine, message_id)}
        assert said | beside == expected | beside
    assert told(machine, PROBLEM) == []


def test_each_kind_is_raised_and_cleared_when_mended(machine: Container) -> None:
    boot(machine)
    tamper(machine, *TAMPERINGS)


def test_the_same_without_statmount(machine: Container) -> None:
    machine.disk.write("/etc/systemd/system/immud.service.d/x.conf", SLOWLY)
    boot(machine)
    tamper(machine, "unmounted", "over", "over a part", "way in")


def test_within_milliseconds_and_with_all_a_program_needs(machine: Container) -> None:
    boot(machine)
    machine.run(
        *("systemd-run", "--quiet", "--unit=listener", "--uid=alice"),
        *("-p", "StandardOutput=file:/run/told", "/usr/bin/python3", "-c", _LISTENER),
    )
    machine.wait_until("grep", "-q", "ready", "/run/told")
    changed = [int(n) for n in machine.run("/usr/bin/python3", "-c", _WRITABLE).stdout.split()]
    machine.wait_until("sh", "-c", "[ $(wc -l </run/told) -gt 10 ]")
    heard = [line.split() for line in machine.run("cat", "/run/told").stdout.splitlines()[1:]]
    assert [path for _, path in heard] == ["/usr"] * 10
    taken = [(int(when) - began) / 1e6 for began, (when, _) in zip(changed, heard, strict=True)]
    print(f"from the change to the signal, ms: {taken}")
    # The promise is 20 ms on a machine of one's own; this one may have others to run.
    assert min(taken) < 20
    assert statistics.median(taken) < 100

    machine.run("mount", "-t", "tmpfs", "x", "/usr/share/man")
    become(machine, {("over-mounted", "/usr/share/man")})
    answer = verify(machine, "--json")
    assert answer.status == 1
    (found,) = json.loads(answer.stdout)["findings"]
    now = float(machine.run("date", "+%s.%N").stdout)
    assert 0 < now - found["Since"] / 1e6 < 60
    assert found["Expected"] == "nothing mounted"
    assert found["Actual"].startswith("tmpfs")
    kernel = [int(part) for part in machine.run("uname", "-r").stdout.split(".")[:2]]
    assert found["By"] == ("author" if kernel >= [6, 14] else "")
    assert bool(found["Pid"]) == bool(found["By"])
    status = machine.run("systemctl", "show", "--value", "-p", "StatusText", "immud").stdout
    assert status.startswith("Degraded; Something is mounted over /usr/share/man")

    # A restart remembers since when, and says nothing twice.
    machine.run("systemctl", "restart", "immud")
    machine.wait_until("busctl", "status", "org.immud1")
    (again,) = json.loads(verify(machine, "--json").stdout)["findings"]
    same = ("Id", "Since", "SinceMonotonic", "By", "Pid")
    assert [again[name] for name in same] == [found[name] for name in same]
    said = [entry["IMMUD_PATH"] for entry in told(machine, TAMPERED)]
    assert said.count("/usr/share/man") == 1

    # What the problem says to run puts it back, and says what cannot be.
    machine.run("mount", "-o", "remount,bind,rw", "/usr")
    become(machine, {("over-mounted", "/usr/share/man"), ("writable", "/usr")})
    assert "sudo immud verify --fix" in " ".join(machine.run("immud", "status").stdout.split())
    assert verify(machine, "--fix").status == 4
    fixed = machine.run("immud", "verify", "--fix", check=False)
    assert fixed.status == 1
    assert not machine.succeeds("touch", "/usr/x")
    machine.run("umount", "/usr/share/man")
    assert machine.run("immud", "verify", "--fix").stdout == (
        "Everything is as this boot left it.\n"
    )


def test_reconciled_twice_at_once_there_is_one_mount(machine: Container) -> None:
    # Between looking and mounting there are some milliseconds; here they do not have to be met.
    code = "/usr/lib/python3/dist-packages/immud/early"
    slow = 's/failed = execute.perform(tuple/__import__("time").sleep(0.5); &/'
    machine.disk.run("sed", "-i", slow, f"{code}/main.py")
    machine.disk.run("grep", "-q", "sleep(0.5)", f"{code}/main.py")
    machine.disk.run("sh", "-c", f"rm {code}/__pycache__/main.*")
    boot(machine)
    before = machine.mounts("/etc")
    assert len(before) == 1
    machine.run("umount", "-l", "/etc")
    machine.run("/usr/bin/python3", "-c", _RECONCILE)
    assert machine.mounts("/etc") == before
    become(machine, set())


def test_a_service_s_own_namespace_and_the_policy_relock(machine: Container) -> None:
    """Nobody announces it: it is found after the service's start, or when asked to verify."""
    boot(machine)
    start = (
        *("systemd-run", "--quiet", "--collect", "--unit=sneaky", "-p", "PrivateMounts=yes"),
        *("sh", "-c", "mount -o remount,bind,rw /usr && exec sleep 1000"),
    )
    machine.run(*start)
    listed = f"busctl call {' '.join(MANAGER)} ListFindings | grep -q /usr"
    machine.wait_until("sh", "-c", listed, timeout=30)
    (found,) = json.loads(verify(machine, "--json").stdout)["findings"]
    assert (found["Kind"], found["Path"], found["By"]) == ("writable", "/usr", "inside")
    assert (found["Unit"], found["Command"]) == ("sneaky.service", "sleep")
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", "sneaky").stdout.strip()
    space = machine.run("readlink", f"/proc/{pid}/ns/mnt").stdout.strip()
    assert space == f"mnt:[{found['Namespace']}]"
    # Where it is a lease's, that is on purpose.
    lease = "/run/immud/leases/1"
    machine.run("sh", "-c", f"mkdir -p {lease} && echo {found['Namespace']} >{lease}/mnt-ns")
    assert verify(machine).status == 0
    machine.run("rm", "-r", lease)
    machine.run("systemctl", "stop", "sneaky")
    assert verify(machine).status == 0

    machine.run("sh", "-c", "cat >/etc/immud/immud.toml", input=RELOCK)
    machine.run("busctl", "call", *MANAGER, "Reload", "a{sv}", "0")
    machine.run(*start)
    verify(machine)
    become(machine, set())
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", "sneaky").stdout.strip()
    assert not machine.succeeds("nsenter", "-t", pid, "-m", "touch", "/usr/x")
    change, mend, finding = TAMPERINGS["writable"]
    for number in range(2, 4):
        machine.run("sh", "-c", change)
        machine.wait_until(
            "sh", "-c", f"test $(journalctl -b -o cat MESSAGE_ID={RELOCKED} | wc -l) = {number}"
        )
        become(machine, set())
        assert machine.run("findmnt", "-n", "-o", "OPTIONS", "/usr").stdout.startswith("ro,")
    # Whoever does that once more has a reason.
    machine.run("sh", "-c", change)
    become(machine, {finding})
    assert any("not restored again" in text for text in machine.messages("-b", "-u", "immud"))
    machine.run("sh", "-c", mend)
    # Another path has the other policy, and a place that is allowed has none.
    machine.run("sh", "-c", "mount -t tmpfs x /data; mount -t tmpfs x /other")
    become(machine, {("new-mount", "/other")})


def test_a_link_that_leads_elsewhere_is_not_put_back_and_not_forgotten(machine: Container) -> None:
    machine.disk.write("/etc/immud/immud.toml", '[tripwire.paths]\n"/srv" = "relock"\n')
    boot(machine)
    change, mend, finding = TAMPERINGS["link"]
    machine.run("sh", "-c", change)
    machine.wait_until(
        "sh",
        "-c",
        "journalctl -b -o cat -u immud | grep -q '^/srv cannot be restored automatically'",
    )
    assert told(machine, RELOCKED) == []
    assert machine.run("immud", "verify", "--fix", check=False).status == 1
    # Nor is it what this boot left after a restart, as each upgrade brings one.
    machine.run("systemctl", "restart", "immud")
    machine.wait_until("busctl", "status", "org.immud1")
    become(machine, {finding})
    machine.run("sh", "-c", mend)
    become(machine, set())
    # One that is gone is restored, and then that is said.
    machine.run("sh", "-c", f"{OPEN}; rm /srv; {SHUT}")
    machine.wait_until(
        "sh", "-c", f"journalctl -b -o cat MESSAGE_ID={RELOCKED} | grep -q '^/srv was restored'"
    )
    become(machine, set())


# What happens on machines all the time.
_ORDINARY = """
set -e
mkdir -p /var/lib/containers/a /var/lib/containers/b /run/netns /run/media/alice/STICK /var/x
cd /var/lib/containers
mount -t overlay overlay -o lowerdir=/usr,upperdir=a,workdir=/var/x b
mount -t tmpfs shm /var/lib/containers/a
mount --bind /var/lib/dpkg /var/lib/containers/a
touch /run/netns/x; mount --bind /proc/self/ns/net /run/netns/x
mount -t tmpfs -o nosuid,nodev stick /run/media/alice/STICK
mount --bind /usr /mnt
mount --bind /home/alice /run/media
mount -t tmpfs x /boot
umount /boot; umount /mnt; umount /run/netns/x
systemd-run --quiet --wait -p ProtectSystem=strict -p ReadWritePaths=/var/lib -p PrivateTmp=yes \\
    -p TemporaryFileSystem=/opt -p BindPaths=/var/lib/dpkg:/srv -p PrivateDevices=yes true
systemd-run --quiet --unit=long -p ProtectSystem=full -p ProtectHome=yes sleep 1000
systemd-run --quiet --unit=own -p PrivateMounts=yes sh -c 'mount -t tmpfs x /opt; exec sleep 1000'
systemd-run --quiet --wait -p User=alice -p PAMName=login true
unshare -m sh -c 'mount -t tmpfs x /usr/share/man; mount -t tmpfs x /other; immud verify'
immud unlock --reason 'an ordinary day' -- sh -c 'touch /usr/x && immud verify && rm /usr/x'
systemctl daemon-reload
systemctl restart immud
for n in $(seq 100); do mount -t tmpfs x /var/x; umount /var/x; done
"""


def test_an_ordinary_day_raises_nothing(machine: Container) -> None:
    machine.disk.write("/etc/systemd/system/data.mount", _DATA)
    machine.disk.run("systemctl", "enable", "data.mount")
    boot(machine)
    machine.run("sh", "-c", _ORDINARY)
    machine.wait_until("busctl", "status", "org.immud1")
    assert ("/data", "tmpfs") in {(mount[0], mount[2]) for mount in machine.mounts()}
    assert verify(machine).stdout == "Everything is as this boot left it.\n"
    assert told(machine, TAMPERED) == []
    assert machine.failed_units() == []
    # Going down is no tampering either.
    machine.reboot()
    assert machine.journal("-b", "-1", f"MESSAGE_ID={TAMPERED}") == []
    assert verify(machine).status == 0


_DATA = """
[Mount]
What=data
Where=/data
Type=tmpfs
[Install]
WantedBy=local-fs.target
"""
