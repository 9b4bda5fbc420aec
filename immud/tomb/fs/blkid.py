"""libblkid, through ctypes: which file system is on a device. Only for children, like its kin.

Nothing but the file systems a tomb may have is looked for: every other parser
stays away from what a stranger may have written.
"""

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p

from immud.errors import ImmudError

LIBRARY = "libblkid.so.1"

_FILTER_ONLY = 2  # BLKID_FLTR_ONLYIN
_UUID, _TYPE = 1 << 3, 1 << 5  # BLKID_SUBLKS_*
_AMBIVALENT = -2


def load() -> ctypes.CDLL:
    """The library; the second time it is there already."""
    return ctypes.CDLL(LIBRARY, use_errno=True)


def probe(device: str, types: tuple[str, ...]) -> tuple[str, str]:
    """(type, UUID) of the file system on `device`; both empty where it is none of `types`.

    Raises ImmudError where it is more than one at once, or cannot be read.
    """
    library = load()
    library.blkid_new_probe_from_filename.restype = c_void_p
    library.blkid_new_probe_from_filename.argtypes = (c_char_p,)
    handle = library.blkid_new_probe_from_filename(os.fsencode(device))
    if not handle:
        raise ImmudError(f"{device} cannot be read: {os.strerror(ctypes.get_errno())}.")
    probe = c_void_p(handle)
    try:
        library.blkid_probe_enable_superblocks(probe, 1)
        library.blkid_probe_set_superblocks_flags(probe, _UUID | _TYPE)
        names = (c_char_p * (len(types) + 1))(*(name.encode() for name in types), None)
        library.blkid_probe_filter_superblocks_type(probe, _FILTER_ONLY, names)
        found = library.blkid_do_safeprobe(probe)
        if found == _AMBIVALENT:
            raise ImmudError(f"{device} has two file systems at once; see: wipefs {device}")
        if found < 0:
            raise ImmudError(f"{device} cannot be read: {os.strerror(ctypes.get_errno())}.")
        return _value(library, probe, "TYPE"), _value(library, probe, "UUID")
    finally:
        library.blkid_free_probe(probe)


def _value(library: ctypes.CDLL, probe: c_void_p, name: str) -> str:
    library.blkid_probe_lookup_value.argtypes = (
        c_void_p,
        c_char_p,
        POINTER(c_char_p),
        POINTER(c_size_t),
    )
    library.blkid_probe_lookup_value.restype = c_int
    value = c_char_p()
    if library.blkid_probe_lookup_value(probe, name.encode(), byref(value), None):
        return ""
    return (value.value or b"").decode(errors="replace")
