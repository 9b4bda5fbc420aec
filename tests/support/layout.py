"""What the layout promises, asked of a booted machine, a container or a virtual one alike."""

import re
from collections.abc import Callable
from typing import Protocol

from tests.support.process import Completed

# A service with a mount namespace of its own that is there before immud is.
EARLY_BIRD = """
[Unit]
DefaultDependencies=no
Before=immud.service
[Service]
PrivateTmp=no
ProtectKernelTunables=yes
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=sysinit.target
"""

# One process of each mount namespace tries to write; then root does, where it may.
_COMPLAINTS = """
seen=''
for process in /proc/[0-9]*; do
    number=${process#/proc/}
    space=$(readlink "$process/ns/mnt") || continue
    case $seen in *" $space "*) continue ;; esac
    seen="$seen $space "
    for place in /usr/x /x; do
        said=$(nsenter -t "$number" -m touch "$place" 2>&1)
        case $said in
        *Read-only* | *'No such'*) ;; # or it has ended meanwhile
        *) echo "$place seen by $number ($(cat "$process/comm")): ${said:-writable}" ;;
        esac
    done
done
for place in /etc /var /home /root; do
    touch "$place/x" && rm "$place/x" || echo "$place is not writable"
done
"""


class Machine(Protocol):
    """What `Container` and `VM` have in common, as far as it is needed here."""

    def run(self, *argv: str, check: bool = True) -> Completed: ...


def complaints(machine: Machine, *, namespaces: str = "[0-9]*") -> list[str]:
    """What of the layout is not so, in the mount namespace of every process.

    `namespaces` is a shell pattern of process ids: `1` for the host's own alone.
    """
    return machine.run("sh", "-c", _COMPLAINTS.replace("[0-9]*", namespaces)).stdout.splitlines()


def failures(console: str, journal: Callable[[str], str]) -> set[str]:
    """The units whose stopping failed, by the console of a shutdown.

    `journal` returns what of that boot's journal matches a pattern. It excuses those that
    systemd 257 could not even spawn umount(8) for: it may remove the control group of a
    unit it is about to use ("Failed to spawn executor").
    """
    failed = set(re.findall(r"\[FAILED\] .*?(\S+\.\w+)", console))
    excuse = "{}: Failed to spawn executor: No such file or directory"
    return {unit for unit in failed if excuse.format(unit) not in journal(excuse.format(unit))}
