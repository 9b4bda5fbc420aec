"""What every tier has in common: the limits on time, the search for leaks, the machines."""

pytest_plugins = [
    "tests.support.limits",
    "tests.support.leaks",
    "tests.support.fixtures",
]
