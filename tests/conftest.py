"""What every tier has in common: the limits on time, the search for leaks, the machines."""

import signal

# A shell has what it starts in the background ignore it, and what tests start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.limits",
    "tests.support.leaks",
    "tests.support.fixtures",
]
