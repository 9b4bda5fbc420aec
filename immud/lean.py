"""Modules that others import and immud never uses: 8 MB of a daemon that may have 22.

dbus-next imports gi for a GLib main loop; asyncio imports ssl for its TLS transports,
and does without where there is none (`except ImportError: ssl = None`).
"""

import sys

UNUSED = ("gi", "ssl")


def block() -> None:
    """Make importing them fail from now on. To be called before asyncio is imported."""
    for name in UNUSED:
        # None is what makes an import fail (the import system's documented behaviour).
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
