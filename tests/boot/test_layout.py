"""The layout in a booted system: what a person finds after `immud enable` and a reboot."""

import time
from collections.abc import Iterator

import pytest

from immud.daemon import RETRIES
from tests.support import layout as support
from tests.support.container import Container
from tests.support.layout import EARLY_BIRD, complaints

# It has a file open that is on the root file system, from before phase 1 on.
WRITER = """[Unit]
DefaultDependencies=no
Before=immud.service
[Service]
Type=notify
NotifyAccess=all
ExecStart=sh -c 'exec 3>/held; systemd-notify --ready; exec sleep 1000'
[Install]
WantedBy=immud.service
"""


@pytest.fixture
def enabled(container: Container) -> Iterator[Container]:
    """A stock system with immud enabled, nothing adopted, off."""
    container.disk.run("env", "container=chroot", "immud", "enable")
    return container


@pytest.fixture
def adopted(container: Container) -> Iterator[Container]:
    """A system that was adopted and enabled while it ran, and is off again."""
    container.boot()
    container.run("immud", "adopt")
    container.run("immud", "enable")
    container.poweroff()
    return container


def layout(machine: Container) -> list[tuple[str, str, str]]:
    """The mounts, without those that come and go with services."""
    return [mount for mount in machine.mounts() if not mount[0].startswith("/run/")]


def failures(machine: Container, console: str) -> set[str]:
    """The units whose stopping failed, by the console of a shutdown."""

    def journal(pattern: str) -> str:
        run = machine.disk.run if machine.is_off else machine.run
        told = ("journalctl", "-D", "/var/log/journal", "-o", "cat", "-n", "1000", "-g", pattern)
        return run(*told, check=False).stdout

    return support.failures(console, journal)


def healthy(machine: Container) -> None:
    assert machine.failed_units() == []
    assert machine.system_state() == "running"
    assert "FAILED" not in machine.console
    assert machine.messages("-b", "-p", "warning") == []


def test_a_stock_system_is_immutable_after_enable(enabled: Container) -> None:
    enabled.disk.write("/etc/systemd/system/early-bird.service", EARLY_BIRD)
    enabled.disk.run("systemctl", "enable", "early-bird.service")
    enabled.boot()
    healthy(enabled)
    assert enabled.run("systemctl", "is-active", "early-bird").stdout == "active\n"
    assert complaints(enabled) == []
    # what a person had stays where it was
    assert enabled.run("cat", "/home/alice/Documents/letter.txt").stdout == "a letter\n"
    assert failures(enabled, enabled.poweroff()) == set()


def test_an_adopted_system_is_immutable_and_keeps_what_is_written(adopted: Container) -> None:
    adopted.boot()
    healthy(adopted)
    assert complaints(adopted) == []
    links = adopted.run("readlink", "/home", "/root", "/opt", "/srv", "/mnt", "/usr/local")
    assert links.stdout.split() == [
        "var/home", "var/roothome", "var/opt", "var/srv", "var/mnt", "../var/usrlocal"
    ]  # fmt: skip
    assert adopted.run("cat", "/home/alice/Documents/letter.txt").stdout == "a letter\n"
    adopted.run("sh", "-c", "echo kept >/etc/kept; echo kept >/var/lib/kept; echo k >/home/kept")
    assert failures(adopted, adopted.reboot()) == set()
    healthy(adopted)
    assert adopted.run("cat", "/etc/kept", "/var/lib/kept").stdout == "kept\nkept\n"
    assert adopted.run("cat", "/var/home/kept").stdout == "k\n"


SHARE = """[Mount]
What=tmpfs
Where=/srv
Type=tmpfs
Options=_netdev
[Install]
WantedBy=remote-fs.target
"""


def test_a_share_that_a_unit_mounts_is_there_and_so_is_the_layout(enabled: Container) -> None:
    """It waits for the network, which waits for immud.service."""
    enabled.disk.write("/etc/systemd/system/srv.mount", SHARE)
    enabled.disk.run("systemctl", "enable", "srv.mount", "systemd-networkd.service")
    enabled.disk.run("systemctl", "mask", "systemd-networkd-wait-online.service")
    for _ in range(2):
        enabled.boot()
        assert "ordering cycle" not in " ".join(enabled.messages("-b"))
        assert enabled.mounts("/srv")[-1][2] == "tmpfs"
        assert enabled.failed_units() == []
        assert complaints(enabled) == []
        assert failures(enabled, enabled.poweroff()) == set()


def test_the_journal_of_this_and_the_previous_boot_is_complete(adopted: Container) -> None:
    adopted.boot()
    adopted.run("logger", "-t", "me", "in the first boot")
    adopted.reboot()
    now, before = adopted.messages("-b"), adopted.messages("-b", "-1")
    for messages in (now, before):
        # from the journal's first word on, before there was a /var to write to
        assert messages[0] == "Journal started"
        assert any("immud.service" in message for message in messages)
    assert "in the first boot" in before
    assert any("Reached target" in message and "hutdown" in message for message in before)
    assert "Journal stopped" in before


def test_twenty_restarts_add_no_mount(adopted: Container) -> None:
    adopted.boot()
    before = layout(adopted)
    for _ in range(20):
        adopted.run("systemctl", "reset-failed", "immud")
        adopted.run("systemctl", "restart", "immud")
    assert layout(adopted) == before
    assert adopted.run("systemctl", "is-active", "immud").stdout == "active\n"
    assert complaints(adopted) == []


def test_a_reload_of_pid_1_does_not_spoil_the_shutdown(adopted: Container) -> None:
    adopted.boot()
    adopted.run("systemctl", "daemon-reload")
    adopted.run("systemctl", "daemon-reexec")
    assert failures(adopted, adopted.poweroff()) == set()


def test_a_killed_daemon_comes_back_and_changes_nothing(adopted: Container) -> None:
    adopted.boot()
    before = layout(adopted)
    adopted.run("systemctl", "kill", "-s", "KILL", "immud")
    adopted.wait_until("sh", "-c", "systemctl show -p NRestarts immud | grep -q =1")
    adopted.wait_until("systemctl", "is-active", "-q", "immud")
    assert layout(adopted) == before
    assert adopted.failed_units() == []


def test_off_on_the_kernel_command_line_leaves_everything(adopted: Container) -> None:
    adopted.boot(kernel="immud=off")
    assert adopted.system_state() == "running"
    adopted.run("touch", "/usr/x", "/x")
    told = adopted.run(
        "busctl", "get-property", "org.immud1", "/org/immud1", "org.immud1.Manager", "State"
    )
    assert told.stdout == 's "off"\n'


def test_mount_alone_does_the_same_on_an_older_kernel(adopted: Container) -> None:
    adopted.disk.write(
        "/etc/systemd/system/immud.service.d/legacy.conf", "[Service]\nEnvironment=IMMUD_LEGACY=1\n"
    )
    adopted.boot()
    assert adopted.system_state() == "running"
    # What mount(2) cannot do, and the tripwire sees if such a service is there: see `immud enable`.
    known = "writable, in mount namespace"
    assert [m for m in adopted.messages("-b", "-p", "warning") if known not in m] == []
    assert complaints(adopted, namespaces="1") == []
    assert failures(adopted, adopted.poweroff()) == set()


def test_the_order_of_phase_1_and_those_who_write_early(adopted: Container) -> None:
    adopted.boot()
    done = int(
        adopted.run(
            "systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic", "immud"
        ).stdout
    )
    for unit in ("systemd-journal-flush", "systemd-tmpfiles-setup", "systemd-random-seed"):
        shown = adopted.run(
            "systemctl", "show", "--value", "-p", "InactiveExitTimestampMonotonic", unit
        ).stdout
        assert int(shown) == 0 or int(shown) >= done, unit
    # a cycle costs a job, immud's or another's, and which one is luck
    told = adopted.run("systemd-analyze", "verify", "default.target", check=False)
    assert "cycle" not in told.stdout + told.stderr


def test_the_root_becomes_read_only_when_a_writer_lets_go(adopted_container: Container) -> None:
    machine = adopted_container
    machine.disk.write("/etc/systemd/system/writer.service", WRITER)
    machine.disk.run("systemctl", "enable", "writer")
    machine.boot()
    assert machine.succeeds("touch", "/x")
    assert "sleep" in machine.run("immud", "status").stdout
    machine.run("systemctl", "stop", "writer")
    machine.wait_until("sh", "-c", "! touch /x", timeout=sum(RETRIES[:4]) + 5)
    machine.wait_until("immud", "verify")
    assert machine.system_state() == "running"


def test_nothing_becomes_read_only_after_a_phase_1_that_failed(
    adopted_container: Container,
) -> None:
    """Whoever mends immud there is not to meet a /usr that changes on the way."""
    machine = adopted_container
    module = "/usr/lib/python3/dist-packages/immud/early/execute.py"
    broken = "import os\nif not os.path.exists('/run/mended'):\n    del perform\n"
    machine.disk.run("tee", "-a", module, input=broken)
    machine.boot()
    machine.run("touch", "/run/mended")
    machine.wait_until("sh", "-c", "immud status --json | grep phase1-failed")
    time.sleep(sum(RETRIES[:2]) + 1)
    machine.run("touch", "/usr/x")
