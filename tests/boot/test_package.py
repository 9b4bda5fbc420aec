"""The Debian package in booted systems of both releases: put on, upgraded, taken off again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import debs, image
from tests.support.container import Container

SUITES = ("trixie", "bookworm")
DEB = "/var/tmp/immud.deb"
LINKS = ("/home", "/root", "/opt", "/srv", "/mnt", "/media", "/usr/local", "/tmp")

# Every file of the system, with what belongs to it; without what each boot writes anew.
FILES = r"""
find / -xdev \( -path /proc -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
    -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/lib/systemd -o -name __pycache__ \) \
    -prune -o ! -path /etc/ld.so.cache ! -path /etc/.updated ! -path /var/.updated \
    ! -path '/etc/resolv.conf*' -printf '%p %y %m %u:%g %l\n' | sort
"""

# What systemd 252 says of every service, immud's or not, in a container on a newer kernel; and
# at each start of one that may read the kernel's log, which a container does not have.
NOISE = ("Failed to kill control group", "Failed to set fd limit", "Couldn't stat device /dev/kmsg")

LAST_IN_OPT = """
Package: last-in-opt
Version: 1
Architecture: all
Maintainer: Somebody <somebody@example.org>
Description: a package with files behind the links
"""


@pytest.fixture(params=SUITES)
def stock(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A container without immud, off; the package is in it as DEB."""
    with Container(image.base(request.param)) as container:
        container.disk.write(DEB, image.package().read_bytes())
        yield container


@pytest.fixture(params=SUITES)
def running(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A running container with immud installed, not enabled and not configured."""
    with Container(image.installed(request.param)) as container:
        container.boot()
        yield container


@pytest.fixture(params=SUITES)
def adopted(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A container with immud installed, adopted and enabled, off."""
    with Container(image.installed(request.param)) as container:
        container.boot()
        container.run("immud", "adopt")
        container.run("immud", "enable")
        container.poweroff()
        yield container


def lease(machine: Container, *argv: str) -> str:
    """Run a command with / and /usr writable for it alone."""
    said = machine.run("immud", "unlock", "--", *argv, timeout=120).stdout
    machine.wait_until("sh", "-c", "! systemctl --plain list-units 'immud-lease-*' | grep -q Lease")
    return said


def appearance(machine: Container) -> dict[str, list[str]]:
    """What a boot looks like from outside: mounts, links, units, and what is said of them."""
    units = ("--no-legend", "--no-pager", "--plain", "--type=service,target,socket,path,timer")
    listed = machine.run("systemctl", "list-units", *units).stdout.splitlines()
    files = machine.run("systemctl", "list-unit-files", "--no-legend").stdout.splitlines()
    places = [f"{where} {options}" for where, options, _ in machine.mounts()]
    warnings = machine.messages("-b", "-p", "warning")
    return {
        "mounts": sorted(place for place in places if not place.startswith("/run/")),
        "links": machine.run("stat", "-c", "%N %a", *LINKS).stdout.splitlines(),
        "units": sorted(" ".join(line.split()[:4]) for line in listed if "@" not in line),
        "unit files": sorted(line for line in files if not line.startswith("immud")),
        "warnings": [text for text in warnings if not any(noise in text for noise in NOISE)],
    }


def status(machine: Container) -> str:
    """dpkg's word for the state of the package."""
    query = ("dpkg-query", "-W", "-f", "${db:Status-Status}", "immud")
    return machine.run(*query, check=False).stdout


def sound(machine: Container) -> bool:
    """Whether dpkg has nothing half-done to complain about."""
    return machine.run("dpkg", "--audit").stdout == ""


def test_installing_it_changes_nothing_at_the_next_boot(stock: Container) -> None:
    stock.boot()
    stock.reboot()
    before = appearance(stock)
    stock.run("dpkg", "-i", DEB)
    assert appearance(stock) == before
    stock.reboot()
    assert appearance(stock) == before
    stock.run("systemctl", "preset", "immud")
    assert stock.run("systemctl", "is-enabled", "immud", check=False).stdout == "disabled\n"
    assert stock.run("ls", "/run/systemd/generator").stdout.count("immud") == 0
    # Nobody's call can start it, and the answer comes at once.
    call = ("busctl", "--timeout=5", "introspect", "org.immud1", "/org/immud1")
    refused = stock.run(*call, check=False, user="alice")
    assert refused.status != 0
    assert "dbus-org.immud1.service not found" in refused.stderr


def test_put_on_used_and_taken_off_nothing_is_left(stock: Container) -> None:
    stock.boot()
    before = stock.run("sh", "-c", FILES).stdout.splitlines()
    stock.run("dpkg", "-i", DEB)
    stock.run("immud", "enable")
    # Nothing changes before the next boot, whoever asks.
    assert "takes effect at the next boot" in stock.run("immud", "status", check=False).stderr
    state = ("busctl", "get-property", "org.immud1", "/org/immud1", "org.immud1.Manager", "State")
    assert stock.run(*state, user="alice").stdout == 's "off"\n'
    assert "nothing is protected before the next boot" in stock.run("immud", "status").stdout
    assert stock.succeeds("sh", "-c", "touch /usr/x /x && rm /usr/x /x")
    assert stock.run("ls", "/run/systemd/generator").stdout.count("immud") == 0
    stock.reboot()
    assert stock.run(*state, user="alice").stdout == 's "running"\n'
    assert not stock.succeeds("touch", "/usr/x")

    refused = stock.run("/usr/bin/dpkg", "--purge", "immud", check=False)
    assert refused.status != 0
    assert "immud unlock -- /usr/bin/dpkg --purge immud" in refused.stderr
    assert status(stock) == "installed"
    assert sound(stock)

    stock.run("immud", "release")
    stock.run("immud", "disable")
    stock.reboot()
    stock.run("dpkg", "--purge", "immud")
    stock.reboot()
    assert stock.run("sh", "-c", FILES).stdout.splitlines() == before
    assert stock.system_state() == "running"
    assert stock.run("find", "/usr/lib/python3", "/run", "-name", "*immud*").stdout == ""


def test_removed_while_enabled_it_is_gone_at_the_next_boot_and_links_stay(
    adopted: Container,
) -> None:
    adopted.boot()
    assert adopted.run("readlink", "/usr/local/sbin/dpkg").stdout == "/usr/lib/immud/dpkg\n"
    lease(adopted, "dpkg", "--remove", "immud")
    assert adopted.run("readlink", "/home").stdout == "var/home\n"
    assert not adopted.succeeds("test", "-L", "/usr/local/sbin/dpkg")
    assert not adopted.succeeds("test", "-e", "/etc/apt/apt.conf.d/90immud")
    adopted.reboot()
    debs.make(adopted, "hello", {"usr/bin/hello": "hello\n"})
    adopted.run("apt-get", "-y", "install", f"{debs.REPOSITORY}/hello_1_all.deb", timeout=120)
    adopted.run("apt-get", "-y", "purge", "hello", timeout=120)
    assert adopted.system_state() == "running"
    adopted.run("touch", "/usr/x", "/x")
    assert adopted.run("cat", "/home/alice/Documents/letter.txt").stdout == "a letter\n"
    # Coming back it is not enabled: that was the person's word for the time before.
    adopted.run("tee", DEB, input=image.package().read_bytes())
    adopted.run("dpkg", "-i", DEB)
    assert adopted.run("systemctl", "is-enabled", "immud", check=False).stdout == "disabled\n"


def test_a_removal_that_would_strand_data_is_refused(running: Container) -> None:
    def refused() -> str:
        told = running.run("dpkg", "--remove", "immud", check=False)
        assert told.status != 0
        assert status(running) == "installed"
        assert sound(running)
        return told.stderr

    running.run("mkdir", "-p", "/dev/mapper")
    running.run("touch", "/dev/mapper/immud-home")
    text = refused()
    assert "a tomb is open: /dev/mapper/immud-home" in text
    assert "'immud close'" in text
    running.run("rm", "/dev/mapper/immud-home")

    running.run("mkdir", "/elsewhere")
    running.run("cp", "-a", "/etc", "/elsewhere/etc")
    running.run("touch", "/elsewhere/etc/.immud")
    running.run("tee", "/etc/immud/immud.toml", input='[etc]\nsource = "/elsewhere/etc"\n')
    running.run("immud", "enable")
    text = refused()
    assert "would not find /etc (/elsewhere/etc)" in text
    assert '"immud disable" and reboot' in text
    assert running.run("systemctl", "is-enabled", "immud").stdout == "enabled\n"

    # With the drive gone for good, too.
    running.run("rm", "-r", "/elsewhere")
    running.run("immud", "disable")
    running.run("dpkg", "--remove", "immud")


def test_dpkg_does_not_take_the_links_away(adopted: Container) -> None:
    adopted.boot(kernel="immud=off")
    tree = "/var/tmp/p"
    for place in ("opt/last", "srv/last", "mnt/last", "usr/local/share"):
        adopted.run("mkdir", "-p", f"{tree}/{place}")
        adopted.run("touch", f"{tree}/{place}/file")
    adopted.run("mkdir", f"{tree}/DEBIAN")
    adopted.run("tee", f"{tree}/DEBIAN/control", input=LAST_IN_OPT.lstrip())
    adopted.run("dpkg-deb", "-b", "--root-owner-group", tree, "/var/tmp/p.deb")
    before = adopted.run("stat", "-c", "%N", *LINKS).stdout
    adopted.run("dpkg", "-i", "/var/tmp/p.deb")
    assert adopted.succeeds("test", "-f", "/var/opt/last/file")
    adopted.run("dpkg", "--purge", "last-in-opt")
    assert adopted.run("stat", "-c", "%N", *LINKS).stdout == before
    assert not adopted.succeeds("test", "-e", "/var/opt/last")


@pytest.fixture
def next_version(tmp_path: Path) -> bytes:
    """The same package with a higher version."""
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "-R", image.package(), tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 9."))
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", tree, f"{tree}.deb"], check=True)
    return Path(f"{tree}.deb").read_bytes()


def test_an_upgrade_restarts_the_running_daemon_and_disturbs_nothing(
    adopted: Container, next_version: bytes
) -> None:
    adopted.disk.write("/var/tmp/next.deb", next_version)
    adopted.boot()
    before, mounts = appearance(adopted), adopted.mounts()
    main_pid = ("systemctl", "show", "--value", "-p", "MainPID", "immud")
    first = adopted.run(*main_pid).stdout

    database = ("sh", "-c", "cat /var/lib/dpkg/status /var/lib/dpkg/info/* | sha256sum")
    untouched = adopted.run(*database).stdout
    refused = adopted.run("/usr/bin/dpkg", "-i", "/var/tmp/next.deb", check=False)
    assert refused.status != 0
    assert "this was stopped before it changed anything" in refused.stderr
    assert (status(adopted), sound(adopted)) == ("installed", True)
    assert adopted.run(*database).stdout == untouched
    assert adopted.run(*main_pid).stdout == first

    lease(adopted, "dpkg", "-i", "/var/tmp/next.deb")
    assert adopted.run("dpkg-query", "-W", "-f", "${Version}", "immud").stdout.startswith("9.")
    assert adopted.run(*main_pid).stdout != first
    assert adopted.mounts() == mounts
    assert appearance(adopted) == before
    assert adopted.run("systemctl", "is-enabled", "immud").stdout == "enabled\n"


def test_upgraded_while_not_enabled_and_purged_with_a_key_at_hand(
    running: Container, next_version: bytes
) -> None:
    running.run("tee", "/var/tmp/next.deb", input=next_version)
    running.run("dpkg", "-i", "/var/tmp/next.deb")
    assert running.run("systemctl", "is-active", "immud", check=False).stdout == "inactive\n"

    # What only the person can replace stays, and dpkg says so.
    running.run("sh", "-c", "cd /etc/immud; echo k >home.key; echo >immud.toml; mkdir immud.toml.d")
    said = running.run("dpkg", "--purge", "immud").stdout
    assert "these are yours and stay: ./home.key" in said
    assert running.run("ls", "-A", "/etc/immud").stdout == "home.key\n"
