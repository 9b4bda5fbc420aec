"""The a{sv} of options that methods take: known names, right types, nothing else."""

from collections.abc import Mapping
from typing import Any

from immud.bus.adapter import BusError, plain
from immud.bus.standard import INVALID_ARGS


def parse(given: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The options as plain values. `known` gives the signature of each.

    Raises BusError that says what would be accepted.
    """
    for name, value in given.items():
        if name not in known:
            accepted = ", ".join(f"{key} ({known[key]})" for key in sorted(known)) or "none"
            raise BusError(INVALID_ARGS, f"There is no option {name!r}; there are: {accepted}.")
        if value.signature != known[name]:
            raise BusError(
                INVALID_ARGS, f"The option {name} is of type {known[name]}, not {value.signature}."
            )
    return {name: plain(value) for name, value in given.items()}
