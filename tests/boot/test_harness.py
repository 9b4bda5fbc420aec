"""The containers themselves: a stock Debian boots in them, and what goes wrong is seen."""

from pathlib import Path

import pytest

from tests.support.container import Container
from tests.support.process import HarnessError

BROKEN = """
[Service]
Type=oneshot
ExecStart=/bin/false
[Install]
WantedBy=multi-user.target
"""


def test_stock_debian_boots_and_shuts_down(stock_container: Container) -> None:
    host = Path("/proc/self/mountinfo").read_text()
    stock_container.boot()
    assert Path("/proc/self/mountinfo").read_text() == host
    assert stock_container.system_state() == "running"
    assert stock_container.failed_units() == []
    assert stock_container.mounts("/")[0][2] == "ext4"
    assert stock_container.run("whoami", user="alice").stdout == "alice\n"
    assert stock_container.run("cat", "/home/alice/Documents/letter.txt").stdout == "a letter\n"
    console = stock_container.poweroff()
    assert "Reached target" in console
    assert "FAILED" not in console


def test_what_is_written_survives_a_reboot_and_so_does_the_journal(
    stock_container: Container,
) -> None:
    stock_container.boot()
    stock_container.run(
        "sh", "-c", "echo kept >/var/tmp/kept; logger -t me first boot; journalctl --sync"
    )
    first = stock_container.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    assert "FAILED" not in stock_container.reboot()
    assert stock_container.run("cat", "/proc/sys/kernel/random/boot_id").stdout != first
    assert stock_container.run("cat", "/var/tmp/kept").stdout == "kept\n"
    assert "first boot" in stock_container.messages("-b", "-1")
    assert "first boot" not in stock_container.messages()


def test_a_failing_unit_is_seen(stock_container: Container) -> None:
    stock_container.disk.write("/etc/systemd/system/broken.service", BROKEN)
    stock_container.disk.run("systemctl", "enable", "broken.service")
    stock_container.boot()
    assert stock_container.system_state() == "degraded"
    assert stock_container.failed_units() == ["broken.service"]
    assert "FAILED" in stock_container.console


def test_a_boot_that_hangs_is_an_error_with_the_console_in_it(stock_container: Container) -> None:
    hanging = "[Service]\nType=oneshot\nExecStart=sleep 100\n[Install]\nWantedBy=sysinit.target\n"
    stock_container.disk.write("/etc/systemd/system/hanging.service", hanging)
    stock_container.disk.run("systemctl", "enable", "hanging.service")
    with pytest.raises(HarnessError, match=r"(?s)had not booted after 5 s.*Starting hanging"):
        stock_container.boot(timeout=5)


def test_the_kernel_command_line_can_be_chosen(stock_container: Container) -> None:
    stock_container.boot(kernel="quiet immud=off")
    assert stock_container.run("cat", "/proc/cmdline").stdout == "quiet immud=off\n"
    assert stock_container.system_state() == "running"


def test_a_killed_container_boots_again(stock_container: Container) -> None:
    stock_container.boot()
    stock_container.run("sh", "-c", "echo kept >/var/tmp/kept; sync")
    stock_container.kill()
    stock_container.boot()
    assert stock_container.run("cat", "/var/tmp/kept").stdout == "kept\n"


def test_loop_devices_of_the_inside_go_with_it(stock_container: Container) -> None:
    stock_container.loops = True
    stock_container.boot()
    stock_container.run("truncate", "-s", "8M", "/var/tmp/file")
    device = stock_container.run("losetup", "--find", "--show", "/var/tmp/file").stdout.strip()
    assert Path(f"/sys/block/{Path(device).name}/loop").exists()
    stock_container.poweroff()
    backing = Path(f"/sys/block/{Path(device).name}/loop/backing_file")
    assert not (backing.exists() and "/var/tmp/file" in backing.read_text())
