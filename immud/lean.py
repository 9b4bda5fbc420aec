"""Modules that others import and immud never uses: 8 MB of a daemon that may have 22.

Each of them may be missing as far as those who import them are concerned, which say
`except ImportError` and do without:

- dbus-next imports gi for a GLib main loop;
- asyncio imports ssl for its TLS transports;
- shutil, which pyudev and structlog bring, imports bz2 and lzma for archives;
- structlog imports rich, better_exceptions and colorama, where they are installed, to print
  in colours, and twisted and greenlet for programs that use those.
"""

import sys

UNUSED = (
    *("gi", "ssl", "bz2", "lzma"),
    *("rich", "better_exceptions", "colorama", "twisted", "greenlet"),
)


def block() -> None:
    """Make importing them fail from now on. To be called before asyncio is imported."""
    for name in UNUSED:
        # None is what makes an import fail (the import system's documented behaviour).
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
