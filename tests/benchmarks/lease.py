"""What a lease adds to root's command, in a container: `immud unlock -- true` beside `true`.

Each sample is the difference of the two, run one after the other by a program inside, in turn
first. It waits until the lease before has ended altogether: what is listed then, in
the background, is nobody's waiting time.
"""

import json

from tests.benchmarks.figures import Figure
from tests.support.container import Container
from tests.support.machines import adopted
from tests.support.process import HarnessError
from tests.support.stages import announce, stage

RUNS = 31
BAR = 60.0

_TIME = """
import json, os, subprocess, sys, time
def once(*argv):
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ)
    _, status = os.waitpid(pid, 0)
    taken = time.perf_counter() - began
    assert status == 0, argv
    units = ("systemctl", "list-units", "--all", "--no-legend", "immud-lease-*")
    while subprocess.run(units, capture_output=True, check=True).stdout:
        time.sleep(0.05)
    return taken * 1000
SIDES = {"plain": ("/bin/true",), "leased": ("/usr/bin/immud", "unlock", "--", "/bin/true")}
taken = {name: [] for name in SIDES}
for turn in range(int(sys.argv[1]) + 1):
    for name in sorted(SIDES, reverse=turn % 2):
        sample = once(*SIDES[name])
        if turn:  # the first is cold
            taken[name].append(sample)
print(json.dumps(taken))
"""


def measure(runs: int = RUNS) -> list[Figure]:
    """`lease.added_ms`."""
    with Container(adopted()) as machine, stage("timing leases"):
        machine.boot()
        machine.run("systemctl", "is-system-running", "--wait", check=False)
        if machine.succeeds("touch", "/usr/x"):
            raise HarnessError("/usr is writable, so a lease would not be needed")
        told = machine.run("python3", "-c", _TIME, str(runs), timeout=60 + 3 * runs)
    taken = json.loads(told.stdout)
    pairs = zip(taken["leased"], taken["plain"], strict=True)
    samples = {"added": [leased - plain for leased, plain in pairs], **taken}
    announce(f"a lease, ms: {[round(value) for value in samples['added']]}")
    facts = {"runs": runs, "measured": "pairs of commands in one booted container"}
    what = "what a lease adds to root's command, in a container"
    return [Figure("lease.added_ms", what, samples, "added", "", "ms", BAR, facts)]
