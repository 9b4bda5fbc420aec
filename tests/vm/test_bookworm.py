"""Debian 12: an older kernel without some of the mount calls' younger kin, and systemd 252."""

from collections.abc import Iterator

import pytest

from tests.support import image, machines
from tests.support.vm import VM

REFUSED = """
for file in /x /usr/x; do
    if touch $file 2>/dev/null; then echo "$file could be written"; fi
done
touch /etc/x /var/x /home/x /root/x
"""


@pytest.fixture
def machine() -> Iterator[VM]:
    with VM(machines.adopted(image.installed("bookworm"))) as machine:
        yield machine


def test_an_adopted_bookworm_boots_immutable_and_shuts_down(machine: VM) -> None:
    machine.boot()
    assert 'VERSION_ID="12"' in machine.run("cat", "/etc/os-release").stdout
    assert machine.failed_units() == []
    assert machine.system_state() == "running"
    assert machine.shell(REFUSED) == ""
    assert machine.run("readlink", "/home").stdout == "var/home\n"
    assert machine.run("cat", "/home/alice/Documents/letter.txt").stdout == "a letter\n"
    assert "FAILED" not in machine.poweroff()
