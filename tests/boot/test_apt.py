"""apt and dpkg on an immutable system: in leases by themselves, or refused, never half-way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import debs, image, machines
from tests.support.container import Container, prepared
from tests.support.image import Image

ENDED = "MESSAGE_ID=106cb866ab66482e8ac1ee12ec7b02a8"
# What is upgraded: on Debian 12 no more than shows that it works there as well.
SOURCES = {
    "trixie": ("base-files", "glibc", "systemd", "python3.13"),
    "bookworm": ("base-files", "systemd"),
}
on_both = pytest.mark.parametrize("machine", SOURCES, indirect=True)

SERVICE = """[Service]
ExecStart=/usr/bin/hello-server
[Install]
WantedBy=multi-user.target
"""
HELLO = {
    "usr/bin/hello-server": "#!/bin/sh\nexec sleep infinity\n",
    "usr/lib/systemd/system/hello.service": SERVICE,
    "opt/hello/file": "in opt\n",
    "usr/local/share/hello": "in usr-local\n",
    "etc/hello.conf": "configured\n",
    "DEBIAN/conffiles": "/etc/hello.conf\n",
    "DEBIAN/postinst": "#!/bin/sh\nset -e\nchmod 755 /usr/bin/hello-server\n"
    "systemctl daemon-reload\nsystemctl restart hello.service\n",
    "DEBIAN/prerm": "#!/bin/sh\nsystemctl stop hello.service\n",
}
SLOW = {
    "usr/share/slow/file": "slow\n",
    "DEBIAN/postinst": "#!/bin/sh\n[ ! -e /run/slow ] || exit 0\necho >/run/slow\nsleep 1000\n",
}
KERNEL = {
    "boot/vmlinuz-9.9-test": "a kernel\n",
    "boot/config-9.9-test": "CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n",
    "usr/lib/modules/9.9-test/kernel/nothing.ko": "",
    "usr/lib/modules/9.9-test/modules.order": "",
    "usr/lib/modules/9.9-test/modules.builtin": "",
    "DEBIAN/postinst": '#!/bin/sh\nset -e\ndepmod 9.9-test\nDEB_MAINT_PARAMS="$*" '
    "run-parts --arg=9.9-test --arg=/boot/vmlinuz-9.9-test /etc/kernel/postinst.d\n",
}


def stocked(suite: str) -> Image:
    """An adopted machine with a repository of its own."""

    def fill(machine: Container) -> None:
        listed = machine.run("dpkg-query", "-W", "-f", "${source:Package} ${Package}\n").stdout
        names = [line.split() for line in listed.splitlines()]
        chosen = [name for source, name in names if source in SOURCES[suite]]
        debs.repack(machine, *chosen)
        debs.make(machine, "hello", HELLO)
        debs.make(machine, "hello", {**HELLO, "opt/hello/new": "2\n"}, version="2")
        debs.make(machine, "slow", SLOW)
        debs.make(machine, "linux-image-9.9-test", KERNEL)
        debs.publish(machine)

    files = Path(debs.__file__), Path(__file__)
    below = machines.adopted(image.installed(suite))
    return prepared(below, f"stocked-{suite}", "making packages", fill, *files)


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Container]:
    """Immutable, and running; Debian 13 unless a test says otherwise."""
    with Container(stocked(getattr(request, "param", "trixie"))) as container:
        container.boot()
        yield container


def apt(machine: Container, *argv: str, check: bool = True) -> str:
    told = machine.run(
        *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qy", *argv),
        check=check,
        timeout=300,
    )
    return told.stdout + told.stderr


def sound(machine: Container) -> None:
    """Nothing is half-done, nobody can write, and no lease is left."""
    assert machine.run("dpkg", "--audit").stdout == ""
    machine.wait_until("sh", "-c", "! systemctl --plain list-units 'immud-lease-*' | grep -q Lease")
    assert machine.run("ls", "/run/immud/leases").stdout == ""
    assert not machine.succeeds("touch", "/usr/x")
    assert machine.failed_units() == []


def leases(machine: Container) -> list[dict[str, str]]:
    return machine.journal("-b", ENDED)


@on_both
def test_apt_installs_upgrades_and_removes(machine: Container) -> None:
    apt(machine, "install", "hello=1")
    sound(machine)
    (lease,) = leases(machine)
    assert lease["IMMUD_COMMAND"].endswith("install hello=1")
    assert "/usr/bin/hello-server" in lease["IMMUD_FILES"].split("\n")
    # The service runs where every other one does, and not in the lease.
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", "hello").stdout.strip()
    spaces = machine.run("readlink", f"/proc/{pid}/ns/mnt", "/proc/1/ns/mnt").stdout.split()
    assert spaces[0] == spaces[1]
    assert machine.run("cat", "/opt/hello/file", "/usr/local/share/hello").stdout.split("\n") == [
        *("in opt", "in usr-local", "")
    ]
    apt(machine, "install", "hello")
    assert machine.succeeds("test", "-f", "/var/opt/hello/new")
    links = machine.run("stat", "-c", "%N", "/opt", "/usr/local").stdout
    apt(machine, "purge", "hello")
    assert not machine.succeeds("test", "-e", "/usr/bin/hello-server")
    assert machine.run("stat", "-c", "%N", "/opt", "/usr/local").stdout == links
    sound(machine)
    # What changes nothing needs no lease.
    count = len(leases(machine))
    machine.run("dpkg", "-l")
    machine.run("apt-cache", "policy", "hello")
    apt(machine, "update")
    assert len(leases(machine)) == count == 3

    # A new kernel: /boot is on the root file system, and an initramfs is made.
    apt(machine, "install", "linux-image-9.9-test")
    assert machine.succeeds("test", "-s", "/boot/initrd.img-9.9-test")
    sound(machine)


@on_both
def test_the_whole_system_is_upgraded_and_boots_again(machine: Container) -> None:
    before = machine.mounts("/usr")
    apt(machine, "-o", "Dpkg::Options::=--force-unsafe-io", "dist-upgrade", "-V")
    versions = machine.run("dpkg-query", "-W", "-f", "${source:Package} ${Version}\n").stdout
    upgraded = {line.split()[0] for line in versions.splitlines() if line.endswith("+newer")}
    assert upgraded in map(set, SOURCES.values())
    assert machine.mounts("/usr") == before
    sound(machine)
    assert len(leases(machine)) == 1
    machine.reboot()
    assert machine.system_state() == "running"
    assert not machine.succeeds("touch", "/usr/x")


# What makes / read-only in every namespace there is makes it so in no lease's.
ANEW = """
systemctl restart immud
until busctl status org.immud1 >/run/said 2>&1; do sleep 0.1; done
sleep 1
touch /usr/anew /anew
unshare --mount touch /usr/anew
immud verify
"""


def test_killed_half_way_refused_and_by_itself(machine: Container) -> None:
    # kill -9 of apt in the middle of a maintainer script.
    machine.run("sh", "-c", "rm -f /run/slow; apt-get -qy install slow >/run/said 2>&1 & "
                "until [ -e /run/slow ]; do sleep 0.05; done; kill -9 $!")  # fmt: skip
    machine.wait_until("sh", "-c", "! ls /run/immud/leases | grep -q .")
    assert machine.run("pgrep", "-f", "sleep 1000", check=False).stdout == ""
    assert not machine.succeeds("touch", "/usr/x")
    machine.run("dpkg", "--configure", "-a")
    sound(machine)

    machine.run("immud", "unlock", "--", "sh", "-ec", ANEW)
    sound(machine)

    # apt in the lease of a script has none of its own to end, and the script goes on.
    script = "apt-get -qy install hello=1; touch /usr/next; apt-get -qy purge hello; rm /usr/next"
    machine.run("immud", "unlock", "--", "sh", "-ec", script, timeout=120)
    machine.run("immud", "unlock", "--", "apt-get", "-qy", "install", "hello=1", timeout=120)
    machine.run("immud", "unlock", "--", "apt-get", "-qy", "purge", "hello", timeout=120)
    sound(machine)

    # dpkg as a person types it, by its full name, and with another root.
    deb = f"{debs.REPOSITORY}/hello_1_all.deb"
    machine.run("dpkg", "-i", deb)
    sound(machine)
    refused = machine.run("/usr/bin/dpkg", "-r", "hello", check=False)
    assert refused.status != 0
    assert "immud unlock -- /usr/bin/dpkg -r hello\n" in refused.stderr
    machine.run("immud", "unlock", "--", "/usr/bin/dpkg", "-r", "hello")
    machine.run(
        "mkdir", "-p", "/var/tmp/other/var/lib/dpkg/info", "/var/tmp/other/var/lib/dpkg/updates"
    )
    machine.run("touch", "/var/tmp/other/var/lib/dpkg/status")
    machine.run("dpkg", "--root=/var/tmp/other", "--force-script-chrootless", "--unpack", deb)
    assert machine.succeeds("test", "-f", "/var/tmp/other/usr/bin/hello-server")

    machine.run("immud", "enable", "--apt=refuse")
    database = ("sh", "-c", "cat /var/lib/dpkg/status /var/lib/dpkg/info/* | sha256sum")
    untouched = machine.run(*database).stdout
    told = apt(machine, "install", "hello", check=False)
    assert "immud unlock -- apt-get -qy install hello\n" in told
    assert machine.run(*database).stdout == untouched
    told = machine.run("dpkg", "-i", deb, check=False).stderr
    assert f"immud unlock -- dpkg -i {deb}\n" in told
    assert machine.run(*database).stdout == untouched
    machine.run("immud", "unlock", "--", "apt-get", "-qy", "install", "hello")
    sound(machine)

    # immud itself: apt is not left with a dpkg that is gone.
    machine.run("immud", "enable", "--apt=lease")
    told = apt(machine, "purge", "immud", check=False)
    assert 'Run "immud disable", then "immud unlock -- apt purge immud"' in told
    sound(machine)
    machine.run("immud", "disable")
    machine.run("immud", "unlock", "--", "apt-get", "-qy", "purge", "immud", timeout=120)
    assert machine.run("dpkg", "--audit").stdout == ""
    assert not machine.succeeds("test", "-e", "/etc/apt/apt.conf.d/90immud")
    assert not machine.succeeds("test", "-L", "/usr/local/sbin/dpkg")
    machine.reboot()
    assert machine.system_state() == "running"
    machine.run("touch", "/usr/x")
