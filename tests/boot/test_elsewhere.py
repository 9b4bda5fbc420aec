"""/etc, /var and /usr from other places, booted."""

import os

from tests.boot.test_layout import failures, healthy
from tests.support import debs
from tests.support.container import Container
from tests.support.layout import complaints

HELLO = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""

STATE = ("busctl", "get-property", "org.immud1", "/org/immud1", "org.immud1.Manager", "State")


def configure(machine: Container, text: str) -> None:
    machine.disk.write("/etc/immud/immud.toml", text)


def enable(machine: Container, *options: str) -> None:
    machine.disk.run("env", "container=chroot", "immud", "enable", *options)


def problems(machine: Container) -> str:
    return machine.run(
        "busctl", "get-property", "org.immud1", "/org/immud1", "org.immud1.Manager", "Problems"
    ).stdout


def image_of_usr(machine: Container, tool: str, prepare: str = "") -> None:
    """An image of the disk's own /usr at /image, with modules for the kernel that will run."""
    release = os.uname().release
    make = {
        "erofs": "mkfs.erofs --quiet -zlz4 image copy",
        "squashfs": "mksquashfs copy image -comp lz4 -quiet -no-progress",
    }[tool]
    machine.disk.beside(
        f"cp -a usr copy; mkdir -p copy/lib/modules/{release}; {prepare}\n{make}; rm -r copy",
        timeout=300,
    )


def test_units_enabled_in_another_etc_start_in_the_same_boot(container: Container) -> None:
    # What is waited for is the source, not PID 1.
    configure(container, '[boot]\nwait = 0\n[etc]\nsource = "/data/etc"\n')
    container.disk.run("mkdir", "-p", "/data/etc")
    enable(container, "--seed")
    container.disk.write("/data/etc/systemd/system/hello.service", HELLO)
    wants = "/data/etc/systemd/system/multi-user.target.wants"
    container.disk.run("mkdir", "-p", wants)
    container.disk.run("ln", "-s", "../hello.service", wants + "/hello.service")
    container.boot()
    assert container.system_state() == "running"
    assert container.failed_units() == []
    assert container.run("systemctl", "is-active", "hello").stdout == "active\n"
    assert complaints(container) == []
    container.run("touch", "/etc/kept")
    container.reboot()
    assert container.succeeds("test", "-e", "/data/etc/kept")
    # disabled in the /etc that is shown, and in the one that PID 1 begins with
    container.run("immud", "disable")
    container.reboot()
    assert container.succeeds("touch", "/usr/x")
    assert not container.succeeds("test", "-e", "/etc/kept")
    assert container.run("systemctl", "is-enabled", "immud", check=False).stdout == "disabled\n"
    assert failures(container, container.poweroff()) == set()


def test_a_source_taken_out_while_its_etc_is_shown(container: Container) -> None:
    """What the next boot does is decided in the disk's own /etc."""
    source = '[etc]\nsource = "/data/etc"\n'
    toml = "/etc/immud/immud.toml"
    configure(container, source)
    container.disk.run("mkdir", "-p", "/data/etc")
    enable(container, "--seed")
    container.boot()
    container.run("touch", "/etc/kept")
    container.run("immud", "disable")
    container.run("rm", toml)
    container.run("immud", "enable")
    container.reboot()
    assert not container.succeeds("test", "-e", "/etc/kept")
    healthy(container)
    container.run("tee", toml, input=source)
    container.run("immud", "enable")
    container.reboot()
    assert container.succeeds("test", "-e", "/etc/kept")
    container.run("rm", toml)
    container.run("immud", "enable")
    container.run("immud", "disable")
    container.reboot()
    assert container.succeeds("touch", "/usr/x")
    assert not container.succeeds("test", "-e", "/etc/kept")
    assert container.run("systemctl", "is-enabled", "immud", check=False).stdout == "disabled\n"
    # apt has nothing left of it that would keep the package from being removed
    container.run("apt-get", "-y", "purge", "immud")
    assert failures(container, container.poweroff()) == set()


KIOSK = """[Unit]
Requires=basic.target
After=basic.target
AllowIsolate=yes
"""


def test_so_they_do_where_the_command_line_names_the_target(container: Container) -> None:
    configure(container, '[etc]\nsource = "/data/etc"\n')
    container.disk.run("mkdir", "-p", "/data/etc")
    container.disk.write("/etc/systemd/system/kiosk.target", KIOSK)
    enable(container, "--seed")
    container.disk.write("/data/etc/systemd/system/hello.service", HELLO)
    wants = "/data/etc/systemd/system/kiosk.target.wants"
    container.disk.run("mkdir", "-p", wants)
    container.disk.run("ln", "-s", "../hello.service", wants + "/hello.service")
    container.boot(kernel="systemd.unit=kiosk.target")
    assert container.run("systemctl", "is-active", "hello", "kiosk.target").stdout == "active\n" * 2
    assert container.failed_units() == []
    assert complaints(container) == []


def test_var_from_another_directory(container: Container) -> None:
    configure(container, '[var]\nsource = "/data/var"\n')
    container.disk.run("mkdir", "-p", "/data/var")
    enable(container, "--seed")
    container.boot()
    healthy(container)
    assert complaints(container) == []
    container.run("touch", "/var/kept")
    assert failures(container, container.reboot()) == set()
    healthy(container)
    assert container.succeeds("test", "-e", "/var/kept")
    assert any("immud" in message for message in container.messages("-b", "-1"))
    container.poweroff()
    container.disk.run("test", "-e", "/data/var/kept")
    container.disk.run("test", "!", "-e", "/var/kept")


def test_a_missing_var_is_said_and_holds_back_what_asks_for_it(container: Container) -> None:
    hold = '[boot]\nhold_back = ["hello.service"]\n'
    configure(container, f'{hold}[var]\nsource = "/data/var"\n')
    container.disk.run("mkdir", "-p", "/data/var")
    enable(container, "--seed")
    container.disk.run("mv", "/data/var", "/data/away")
    container.disk.run("mkdir", "/data/var")
    container.disk.write("/etc/systemd/system/hello.service", HELLO)
    container.disk.run("systemctl", "enable", "hello.service")
    container.boot()
    assert container.run(*STATE).stdout == 's "degraded"\n'
    assert "source-missing" in problems(container)
    assert "/var is the one on the disk" in container.console
    assert container.run("systemctl", "is-active", "hello", check=False).stdout == "inactive\n"
    assert container.succeeds("systemctl", "is-active", "-q", "console-getty")
    assert complaints(container) == []
    # and where it is there again, nothing is held
    container.poweroff()
    container.disk.run("rmdir", "/data/var")
    container.disk.run("mv", "/data/away", "/data/var")
    container.disk.run("systemctl", "--root=/", "enable", "hello.service")
    container.boot()
    assert container.run("systemctl", "is-active", "hello", check=False).stdout == "active\n"


def test_usr_from_an_image(container: Container) -> None:
    container.loops = True
    image_of_usr(container, "erofs", "echo image >copy/origin")
    configure(container, '[boot]\nwait = 0\n[usr]\nsource = "/image"\n')
    enable(container)
    container.boot()
    healthy(container)
    assert container.run("cat", "/usr/origin").stdout == "image\n"
    assert complaints(container) == []
    assert container.mounts("/usr")[-1][2] == "erofs"
    a_lease_is_a_trial(container)
    assert failures(container, container.poweroff()) == set()


def a_lease_is_a_trial(machine: Container) -> None:
    """Packages are changed in one alone, and not for long."""
    debs.make(machine, "hello", {"usr/bin/hello": "hello\n"})
    deb = f"{debs.REPOSITORY}/hello_1_all.deb"
    database = ("sh", "-c", "cat /var/lib/dpkg/status /var/lib/dpkg/info/* | sha256sum")
    before = machine.run(*database).stdout
    refused = machine.run("dpkg", "-i", deb, check=False)
    assert refused.status != 0
    assert "/usr is an image" in refused.stderr
    assert f"immud unlock -- dpkg -i {deb}\n" in refused.stderr
    assert machine.run(*database).stdout == before
    files = ("find", "/run", "-xdev", "-size", "+900k")
    assert machine.run(*files).stdout == ""
    script = (
        f"dpkg -i {deb}; cat /usr/bin/hello; dpkg -s hello; rm /usr/origin; [ ! -e /usr/origin ]"
    )
    script += "; head -c 1M /dev/zero >/usr/much; nsenter -t 1 -m find /run -xdev -size +900k >&2"
    told = machine.run("immud", "unlock", "--", "sh", "-ec", script)
    assert "Status: install ok installed" in told.stdout
    machine.wait_until("sh", "-c", "! systemctl --plain list-units 'immud-lease-*' | grep -q Lease")
    # What it wrote is in a file system that only it had.
    assert told.stderr == ""
    assert machine.run("ls", "-A", "/run/immud/leases").stdout == ""
    assert machine.run("cat", "/usr/origin").stdout == "image\n"
    assert not machine.succeeds("test", "-e", "/usr/bin/hello")
    assert not machine.succeeds("dpkg", "-s", "hello")
    assert machine.run(*database).stdout == before
    assert complaints(machine) == []


def test_usr_from_an_image_with_another_systemd(container: Container) -> None:
    container.loops = True
    image_of_usr(container, "squashfs", "printf other >>copy/lib/systemd/systemd")
    configure(container, '[usr]\nsource = "/image"\n')
    enable(container)
    container.boot()
    assert container.system_state() == "running"
    assert container.failed_units() == []
    assert container.mounts("/usr")[-1][2] == "squashfs"
    # PID 1 runs from the image, not from what is below it
    inside = container.run("stat", "-Lc", "%d", "/proc/1/exe", "/usr/lib/systemd/systemd").stdout
    assert len(set(inside.split())) == 1
    assert failures(container, container.poweroff()) == set()


def test_an_image_that_cannot_run_this_machine_is_refused(container: Container) -> None:
    container.loops = True
    image_of_usr(container, "erofs", "rm -r copy/lib/python3/dist-packages/dbus_next")
    configure(container, '[usr]\nsource = "/image"\n')
    enable(container)
    container.boot()
    assert container.run(*STATE).stdout == 's "degraded"\n'
    assert "usr-refused" in problems(container)
    assert "dbus_next" in problems(container)
    assert container.failed_units() == []
    assert complaints(container) == []
