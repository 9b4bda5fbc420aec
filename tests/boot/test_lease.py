"""A lease in a booted, immutable system: one command writes, nobody else, and then it is over."""

import time
from collections.abc import Iterator

import pytest

from tests.support import image, machines
from tests.support.container import Container
from tests.support.process import Completed

LEASES = "/run/immud/leases"
UNITS = ("systemctl", "list-units", "--all", "--no-legend", "--plain", "immud-lease-*")
ENDED = "MESSAGE_ID=106cb866ab66482e8ac1ee12ec7b02a8"
BEGAN = "MESSAGE_ID=3ef915830f064989b2a7c9a84af7b063"

# Starts a lease that lasts until it is told otherwise, and waits until it is on record.
LONG = """
rm -f /run/go
setsid immud unlock --reason 'a long one' -- sh -c '
    setsid sleep 1000 & sleep 1001 & touch /run/go; wait' >/run/said 2>&1 &
until [ -e /run/go ]; do sleep 0.02; done
"""


@pytest.fixture(scope="module", params=["trixie", "bookworm"])
def machine(request: pytest.FixtureRequest) -> Iterator[Container]:
    """An immutable machine for all the tests here: a lease leaves nothing behind."""
    with Container(machines.adopted(image.installed(request.param))) as container:
        container.boot()
        container.run("systemctl", "stop", "console-getty")  # it starts anew when it likes
        yield container


@pytest.fixture(autouse=True)
def _nothing_is_left(machine: Container) -> Iterator[None]:
    yield
    gone(machine)


def unlock(machine: Container, *argv: str, **options: object) -> Completed:
    return machine.run("immud", "unlock", *argv, check=False, **options)  # type: ignore[arg-type]


def gone(machine: Container) -> None:
    """No record, no unit, no process and no writable /usr is left."""
    machine.wait_until("sh", "-c", f"! ls {LEASES} | grep -q .")
    machine.wait_until("sh", "-c", f"! {' '.join(UNITS)} | grep -q .")
    assert machine.run("pgrep", "-f", "sleep 100[01]", check=False).stdout == ""
    assert not machine.succeeds("touch", "/usr/x")
    assert not machine.succeeds("touch", "/x")


def ended(machine: Container, lease: str) -> dict[str, str]:
    """What the journal says of a lease's end."""
    machine.wait_until(
        "sh", "-c", f"journalctl -b -o cat --output-fields=IMMUD_LEASE {ENDED} | grep -q {lease}"
    )
    (entry,) = machine.journal("-b", ENDED, f"IMMUD_LEASE={lease}")
    return entry


def test_the_command_writes_and_nobody_else_does(machine: Container) -> None:
    told = unlock(
        machine,
        *("--reason", "a test", "--", "sh", "-c"),
        "touch /usr/lease-1 /lease-1; echo $IMMUD_LEASE; cat; exit 7",
        input="handed over\n",
    )
    lease, rest = told.stdout.split("\n", 1)
    assert (told.status, rest, told.stderr) == (7, "handed over\n", "")
    machine.run("test", "-f", "/usr/lease-1", "-a", "-f", "/lease-1")
    entry = ended(machine, lease)
    assert entry["IMMUD_RESULT"] == "success"
    assert entry["IMMUD_FILES"].split() == ["/usr", "/usr/lease-1"]
    assert entry["IMMUD_CHANGED"] == "2"
    assert (entry["IMMUD_UID"], entry["IMMUD_REASON"]) == ("0", "a test")
    (began,) = machine.journal("-b", BEGAN, f"IMMUD_LEASE={lease}")
    assert "touch /usr/lease-1" in began["MESSAGE"]
    assert any("A lease on / and /usr" in text for text in machine.messages("-b", "-u", "immud"))


def test_the_command_is_what_it_would_be_without(machine: Container) -> None:
    script = "cd /var/tmp; umask 027; export WORD='two words'; ulimit -n 512; exec {} sh -c '{}'"
    show = 'pwd; umask; echo "$WORD"; ulimit -n; echo $PPID'
    plain = machine.run("sh", "-c", script.format("", show)).stdout
    leased = machine.run("sh", "-c", script.format("immud unlock --", show)).stdout
    assert leased == plain


def test_on_record_while_it_lasts_and_seen_by_nobody(machine: Container) -> None:
    machine.run("sh", "-c", LONG.replace("setsid sleep", "trap '' TERM HUP; setsid sleep"))
    (lease,) = machine.run("ls", LEASES).stdout.split()
    assert not machine.succeeds("touch", "/usr/x")
    assert machine.run("cat", f"{LEASES}/{lease}/why").stdout == "a long one\n"
    pid = machine.run("cat", f"{LEASES}/{lease}/pid").stdout.strip()
    space = machine.run("stat", "-L", "-c", "%i", f"/proc/{pid}/ns/mnt").stdout
    assert machine.run("cat", f"{LEASES}/{lease}/mnt-ns").stdout == space
    assert machine.run("cat", f"{LEASES}/{lease}/since", user="alice").status == 0
    for secret in ("command", "until"):
        told = machine.run("cat", f"{LEASES}/{lease}/{secret}", check=False, user="alice")
        assert "Permission denied" in told.stderr
    # Everybody can ask for a unit's properties.
    unit = machine.run("cat", f"{LEASES}/{lease}/unit").stdout.strip()
    assert "sleep" not in machine.run("systemctl", "show", unit, user="alice").stdout
    # The daemon tells everybody, and more to root.
    shown = machine.run("immud", "status", user="alice").stdout.split("Leases\n")[1]
    assert shown.split()[:3] == ["FOR", "SINCE", "WHY"]
    assert shown.split()[3] == "root"
    assert shown.endswith("a long one\n")
    described = ("busctl", "call", "org.immud1", f"/org/immud1/lease/{lease}")
    assert "sleep 1001" in machine.run(*described, "org.immud1.Lease", "Describe").stdout
    status = ("systemctl", "show", "--value", "-p", "StatusText", "immud")
    assert "a lease on / and /usr" in machine.run(*status).stdout
    assert machine.run("immud", "verify").status == 0
    # A slave: what goes on the host goes here, what is mounted here stays here.
    machine.run("mount", "-t", "tmpfs", "tmpfs", "/var/mnt")
    there = ("nsenter", "-t", pid, "-m", "findmnt", "-n", "/var/mnt")
    assert machine.succeeds(*there)
    machine.run("umount", "/var/mnt")
    assert not machine.succeeds(*there)
    machine.run("nsenter", "-t", pid, "-m", "mount", "-t", "tmpfs", "tmpfs", "/var/mnt")
    assert machine.mounts("/var/mnt") == []
    assert machine.run("nsenter", "-t", pid, "-m", "touch", "/usr/lease-2").status == 0
    machine.run(*described, "org.immud1.Lease", "End")


@pytest.mark.parametrize(
    "who", ["cat {}/pid", "cat {}/watcher", "systemctl show --value -p MainPID $(cat {}/unit)"]
)
def test_kill_any_of_it_and_all_of_it_is_gone(machine: Container, who: str) -> None:
    machine.run("sh", "-c", LONG)
    (lease,) = machine.run("ls", LEASES).stdout.split()
    machine.run("sh", "-c", f"kill -9 $({who.format(LEASES + '/*')})")
    gone(machine)
    assert ended(machine, lease)["IMMUD_REASON"] == "a long one"


def test_its_time_is_up(machine: Container) -> None:
    began = time.monotonic()
    told = unlock(machine, "--for", "1s", "--", "sh", "-c", "echo $IMMUD_LEASE; exec sleep 1000")
    assert told.status == -15
    assert time.monotonic() - began < 15
    assert "its time was up" in ended(machine, told.stdout.strip())["MESSAGE"]


SLOW = r"""#!/bin/sh
printf '/usr/found\0'
exec sleep 1000
"""


def test_its_end_is_told_where_the_search_for_files_takes_too_long(machine: Container) -> None:
    find = "cp -a /usr/bin/find /usr/bin/find.real; cat >/usr/bin/find; echo $IMMUD_LEASE"
    told = unlock(machine, "--", "sh", "-c", find, input=SLOW)
    entry = ended(machine, told.stdout.strip())
    assert (entry["IMMUD_FILES"], entry["IMMUD_COMPLETE"]) == ("/usr/found", "no")
    gone(machine)
    told = unlock(
        machine, "--", "sh", "-c", "mv /usr/bin/find.real /usr/bin/find; echo $IMMUD_LEASE"
    )
    assert ended(machine, told.stdout.strip())["IMMUD_COMPLETE"] == "yes"


@pytest.mark.parametrize(
    "leaving", ["su -c 'exec sleep 1000' alice", "systemd-run --quiet --scope sleep 1000"]
)
def test_what_left_its_control_group_ends_with_it(machine: Container, leaving: str) -> None:
    script = f"echo $IMMUD_LEASE; {leaving} >/dev/null 2>&1 & exec sleep 1001 >/dev/null"
    told = unlock(machine, "--for", "2s", "--", "sh", "-c", script)
    entry = ended(machine, told.stdout.strip())
    assert "its time was up" in entry["MESSAGE"]
    assert "sleep" in entry["MESSAGE"].split("killed: ")[1]
    assert int(entry["IMMUD_KILLED"]) >= 1
    # What a session brings, and what is asked about its user, is there for a while.
    machine.run("systemctl", "stop", "user@1000", "systemd-userdbd.socket", "systemd-userdbd")


def test_in_a_lease_there_is_no_other(machine: Container) -> None:
    told = unlock(machine, "--", "immud", "unlock", "--", "sh", "-c", f"ls {LEASES} | wc -l")
    assert told.stdout == "1\n"


def test_no_daemon_is_needed(machine: Container) -> None:
    machine.run("systemctl", "kill", "--signal=STOP", "immud")
    try:
        assert unlock(machine, "--", "touch", "/usr/lease-3").status == 0
    finally:
        machine.run("systemctl", "kill", "--signal=CONT", "immud")


def test_on_a_terminal_with_job_control(machine: Container) -> None:
    typed = "sleep 1000\n\x03echo status $?\nsleep 1000\n\x1ajobs\nkill %1\ntty\nexit 5\n"
    shell = "PS1=\\$ exec immud unlock -- bash --norc -i"
    # script(1) of both releases takes its input as what is typed. Whoever runs the tests in
    # the background of a shell has them ignore what Ctrl-C sends, and all they start as well.
    told = machine.run(
        "sh", "-c", f"(printf '%s' \"$1\" | while IFS= read -r line; do sleep 0.5; "
        f"printf '%s\\n' \"$line\"; done) | "
        f"env --default-signal=INT,QUIT script -qec '{shell}' /dev/null",
        "sh", typed, check=False,
    )  # fmt: skip
    assert "no job control" not in told.stdout
    assert "status 130" in told.stdout
    assert "Stopped" in told.stdout
    assert "/dev/pts/" in told.stdout
    assert told.status == 5


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (("--", "no-such-thing"), 127, "no-such-thing: command not found"),
        (("--for", "soon", "--", "true"), 2, "invalid duration 'soon'"),
        ((), 2, "say which command is to run"),
    ],
)
def test_refusals(machine: Container, argv: tuple[str, ...], status: int, said: str) -> None:
    told = unlock(machine, *argv)
    assert (told.status, said in told.stderr) == (status, True)
