"""What people meet at login while their tomb is away, in a booted system."""

import time

import pytest

from tests.support.container import Container

DEFAULT = '[tomb.home]\nlabel = "Ada"\n'
NOLOGIN = DEFAULT + 'absent = "nologin"\n'
# Somebody who logs in at the very moment the first prompt is there.
GETTY = """[Service]
ExecStart=
ExecStart=-/sbin/agetty {} --noclear --keep-baud - 115200 dumb
"""

# As fsck is, of a disk that was not taken away in order.
CHECK = """[Unit]
DefaultDependencies=no
After=immud.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sleep 3
"""


def configure(machine: Container, config: str, getty: str) -> None:
    machine.disk.write("/etc/immud/immud.toml", config)
    drop_in = "/etc/systemd/system/console-getty.service.d/options.conf"
    machine.disk.write(drop_in, GETTY.format(getty))


def enable(machine: Container) -> str:
    """What `immud enable` says, which may be no."""
    done = machine.disk.run("env", "container=chroot", "immud", "enable", check=False)
    return " ".join((done.stdout + done.stderr).split())


def in_order(machine: Container, *units: str) -> None:
    """Each unit was started before the next one began to."""
    times = []
    for unit in units:
        for moment in ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"):
            times.append(machine.run("systemctl", "show", "-P", moment, unit).stdout.strip())
    numbers = list(map(int, times))
    assert 0 not in numbers, "each has run"
    assert numbers == sorted(numbers)


@pytest.fixture
def empty(adopted_container: Container) -> Container:
    """A system whose user has no home on the disk, off."""
    adopted_container.disk.run("mv", "/var/home/alice", "/var/lib/alice")
    return adopted_container


def test_without_a_home_on_the_disk_there_is_one_in_memory(empty: Container) -> None:
    configure(empty, DEFAULT, "--autologin alice")
    enable(empty)
    empty.boot()
    empty.wait_until("pgrep", "-u", "alice", "bash")
    in_order(empty, "immud-fallback.service", "systemd-user-sessions.service")
    assert empty.mounts("/var/home")[0][2] == "tmpfs"
    # the shell on the console has been told, and is at home
    assert "what you save in it is lost at power-off" in empty.console
    assert empty.run("pgrep", "-u", "alice", "-x", "bash").stdout
    where = empty.run("sh", "-c", "readlink /proc/$(pgrep -u alice -x bash)/cwd").stdout
    assert where == "/var/home/alice\n"
    listed = empty.run("su", "-l", "alice", "-c", "pwd; echo x >new; ls -A").stdout.split()
    assert listed[0] == "/var/home/alice"
    assert {".bashrc", "LOST-AT-POWER-OFF.txt", "new"} <= set(listed)
    assert empty.run("stat", "-c", "%U %a", "/home/alice").stdout == "alice 700\n"
    assert "(volatile)" in empty.run("immud", "status").stdout
    assert "in memory" in empty.run("immud", "status").stdout
    for _ in range(3):
        empty.run("systemctl", "reset-failed", "immud")
        empty.run("systemctl", "restart", "immud")
    empty.wait_until("immud", "status")
    assert len(empty.mounts("/var/home")) == 1
    assert empty.run("ls", "/home/alice/new").stdout, "a restart makes nothing anew"
    # Nobody takes it for the disk when the tomb is configured no more.
    empty.run("sed", "-i", "d", "/etc/immud/immud.toml")
    for verb in ("reload", "restart"):
        empty.run("rm", "/run/motd.d/immud")
        empty.run("systemctl", verb, "immud")
        empty.wait_until("grep", "What is in /var/home", "/run/motd.d/immud")
        said = " ".join(empty.run("immud", "status", check=False).stdout.split())
        assert "no tomb is configured there any more" in said
    assert empty.failed_units() == []
    said = empty.poweroff()
    assert "FAILED" not in said
    # The daemon has gone before what is mounted in a tomb's place is taken away.
    assert "cycle" not in empty.console
    said = said[said.index("Stopped immud.service") :]
    assert "Unmounting var-home.mount" in said
    # on the disk there is nothing of it, and the next boot begins anew
    assert empty.disk.run("ls", "-A", "/var/home").stdout == ""


def test_what_fstab_mounts_in_its_place_comes_after_and_goes_before(empty: Container) -> None:
    configure(empty, DEFAULT, "--autologin alice")
    enable(empty)
    empty.disk.run("sh", "-c", "echo tmpfs /var/home tmpfs size=1M 0 0 >>/etc/fstab")
    empty.boot()
    in_order(empty, "immud.service", "var-home.mount")
    said = empty.poweroff()
    assert "FAILED" not in said
    assert "cycle" not in empty.console
    assert said.index("Unmounted var-home.mount") < said.index("Stopped immud.service")


def test_what_fstab_mounts_late_in_its_place_is_waited_for(empty: Container) -> None:
    """A disk with homes that is checked for long: no empty homes in its stead, nor below it."""
    configure(empty, DEFAULT, "--autologin alice")
    enable(empty)
    empty.disk.run("sh", "-c", "echo tmpfs /var/home tmpfs size=1M 0 0 >>/etc/fstab")
    empty.disk.write("/etc/systemd/system/check.service", CHECK)
    late = "[Unit]\nRequires=check.service\nAfter=check.service\n"
    empty.disk.write("/etc/systemd/system/var-home.mount.d/late.conf", late)
    empty.boot()
    empty.wait_until("grep", "-q", "/var/home", "/proc/mounts")
    in_order(empty, "immud.service", "check.service", "var-home.mount")
    assert empty.system_state() == "running"
    empty.run("flock", "--shared", "--timeout", "15", "/run/immud/logins", "true")
    assert len(empty.mounts("/var/home")) == 1
    assert "size=1024k" in empty.run("grep", " /var/home ", "/proc/mounts").stdout
    assert "in memory" not in empty.run("immud", "status").stdout
    told = [text for text in empty.messages("-b", "-u", "immud") if " waits for " in text]
    assert told == [
        "Tomb home waits for var-home.mount, which systemd starts; see: systemctl list-jobs"
    ]
    assert "FAILED" not in empty.poweroff()


def test_nobody_is_let_in_but_root(adopted_container: Container) -> None:
    configure(adopted_container, NOLOGIN, "--skip-login --login-options alice")
    adopted_container.disk.run("passwd", "--lock", "root")
    said = enable(adopted_container)
    assert "root has no way to log in" in said
    assert "passwd root" in said
    adopted_container.disk.run("passwd", "--unlock", "root")
    assert "root has no way to log in" not in enable(adopted_container)
    adopted_container.boot()
    # login(1) on the console, of somebody who has not even been asked for a password
    refusal = "Plug in the drive labelled Ada, then log in."
    adopted_container.wait_until("grep", "-q", refusal, "/run/nologin")
    until = time.monotonic() + 20
    while refusal not in adopted_container.console:
        assert time.monotonic() < until, adopted_container.console
        time.sleep(0.1)
    assert "(nologin)" in adopted_container.run("immud", "status").stdout
    # what is said on the way down is systemd's, and not ours to remove
    adopted_container.run("systemctl", "stop", "systemd-user-sessions")
    assert "going down" in adopted_container.run("cat", "/run/nologin").stdout
    adopted_container.run("systemctl", "start", "systemd-user-sessions")
    adopted_container.wait_until("grep", "-q", "Plug in", "/run/nologin")
    adopted_container.run("sed", "-i", "/absent/d", "/etc/immud/immud.toml")
    adopted_container.run("systemctl", "reload", "immud")
    adopted_container.wait_until("sh", "-c", "! test -e /run/nologin")
    assert "FAILED" not in adopted_container.poweroff()


def test_a_daemon_that_dies_does_not_keep_people_out(empty: Container) -> None:
    configure(empty, DEFAULT, "--autologin alice")
    enable(empty)
    # phase 2 cannot be: its first library is broken
    empty.disk.write("/usr/lib/python3/dist-packages/structlog/__init__.py", "raise SystemExit\n")
    empty.boot()
    empty.wait_until("pgrep", "-u", "alice", "bash")
    assert empty.run("systemctl", "is-active", "systemd-user-sessions").stdout == "active\n"
