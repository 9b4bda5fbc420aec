"""Hooks as systemd itself runs them, asked over PID 1's own socket as at shutdown."""

from tests.support.container import Container

HOOKS = """
put() { printf '#!/bin/sh\\n%s\\n' "$2" >"/etc/immud/hooks.d/closing/$1"
        chmod 755 "/etc/immud/hooks.d/closing/$1"; }
put 1-good 'echo "$0 $IMMUD_EVENT $IMMUD_TOMB $IMMUD_MOUNT_POINT $IMMUD_UUID $#"; sleep 1000 &'
put 2-bad 'exit 3'
put 3-last 'systemctl is-active immud-hook-my-own-closing-1-good.service; pgrep sleep; true'
put 4-writable true
chmod 666 /etc/immud/hooks.d/closing/4-writable
chmod +x /etc/immud/hooks.d/closing/4-writable
"""

ASK = """
import asyncio
from immud.bus.adapter import Connection
from immud.integration.hooks import About, Event, Hooks
from immud.systemd import PRIVATE, Systemd
from immud.integration.targets import target_of

async def ask():
    connection = await Connection.open(PRIVATE, direct=True)
    systemd = Systemd(lambda: connection)
    for text in await Hooks(systemd, print).run(Event.CLOSING, About("my-own", "/there", "5f0e")):
        print(text)
    await systemd.start_unit(target_of("my-own"))
    print(await systemd.unit_state(target_of("my-own")))
    connection.close()

asyncio.run(ask())
"""


# systemctl says "unknown" where PID 1, busy with the end, has not answered.
NOTE = r"""
hook=/etc/immud/hooks.d/closing/note
echo '#!/bin/sh
for _ in 1 2 3 4 5; do
    now=$(systemctl is-system-running)
    [ "$now" = unknown ] || break
done
echo "$IMMUD_EVENT, $now" >/var/told' >$hook
chmod 755 $hook
"""

# As immud.service is stopped, when everything is.
STOPPED = """
[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=/usr/bin/python3 -I /root/ask
"""


def test_run_by_systemd_without_a_bus(container: Container) -> None:
    container.disk.write("/root/ask", ASK)
    container.disk.write("/etc/systemd/system/asks.service", STOPPED)
    container.boot()
    container.run("sh", "-c", HOOKS)
    said = container.run("python3", "-I", "/root/ask").stdout
    assert "1-good" not in said
    assert (
        "The hook /etc/immud/hooks.d/closing/2-bad failed for tomb my-own; "
        "see: journalctl -u 'immud-hook-my-own-closing-2-bad.service'" in said
    )
    assert "4-writable is not run: others may write to" in said
    assert said.endswith("\nactive\n")
    assert container.run("systemctl", "is-active", r"immud-tomb@my\x2down.target").stdout
    journal = container.run("journalctl", "-o", "cat", "-u", "immud-hook-my-own-*").stdout
    first = "/etc/immud/hooks.d/closing/1-good closing my-own /there 5f0e 0"
    assert first in journal.splitlines()
    # Each ends with all it started, before the next begins.
    assert "inactive" in journal.splitlines()
    assert not any(line.isdigit() for line in journal.splitlines())

    # While the system stops there may be no bus.
    for hook in ("1-good", "2-bad", "3-last", "4-writable"):
        container.run("rm", f"/etc/immud/hooks.d/closing/{hook}")
    container.run("sh", "-c", NOTE)
    container.run("systemctl", "start", "asks")
    container.poweroff()
    assert container.disk.read("/var/told") == "closing, stopping\n"
