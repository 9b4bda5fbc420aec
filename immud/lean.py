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
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

UNUSED = (
    *("gi", "ssl", "bz2", "lzma"),
    *("rich", "better_exceptions", "colorama", "twisted", "greenlet"),
)


def bare(name: str) -> None:
    """Let modules of the package `name` be imported without what its own first lines import.

    Raises ImportError where there is no such package.
    """
    if name in sys.modules:
        return
    spec = PathFinder.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"there is no package {name}", name=name)
    # What the import system itself would make of it, without running it.
    sys.modules[name] = module_from_spec(spec)


def block() -> None:
    """Make importing them fail from now on. To be called before asyncio is imported."""
    for name in UNUSED:
        # None is what makes an import fail (the import system's documented behaviour).
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
