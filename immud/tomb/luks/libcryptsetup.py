"""libcryptsetup, through ctypes: reading LUKS headers and unlocking, with no program in between.

Only for children (`immud.child.in_child`): a library that reads what a stranger
wrote is not loaded into the daemon, and if it crashes or hangs, a child does.
Key material is in memory the library locks and wipes itself.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from immud.errors import ImmudError

LIBRARY = "libcryptsetup.so.12"
ANY_SLOT = -1
ACTIVATE_READONLY = 1 << 0
LOG_ERROR = 1
SLOT_ACTIVE = (2, 3)  # CRYPT_SLOT_ACTIVE, CRYPT_SLOT_ACTIVE_LAST

_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "crypt_init": (c_int, (POINTER(c_void_p), c_char_p)),
    "crypt_free": (None, (c_void_p,)),
    "crypt_set_log_callback": (None, (c_void_p, _LOG, c_void_p)),
    "crypt_load": (c_int, (c_void_p, c_char_p, c_void_p)),
    "crypt_set_data_device": (c_int, (c_void_p, c_char_p)),
    "crypt_get_type": (c_char_p, (c_void_p,)),
    "crypt_get_uuid": (c_char_p, (c_void_p,)),
    "crypt_get_cipher": (c_char_p, (c_void_p,)),
    "crypt_get_cipher_mode": (c_char_p, (c_void_p,)),
    "crypt_get_data_offset": (c_uint64, (c_void_p,)),
    "crypt_get_volume_key_size": (c_int, (c_void_p,)),
    "crypt_get_metadata_size": (c_int, (c_void_p, POINTER(c_uint64), POINTER(c_uint64))),
    "crypt_keyslot_max": (c_int, (c_char_p,)),
    "crypt_keyslot_status": (c_int, (c_void_p, c_int)),
    "crypt_keyslot_area": (c_int, (c_void_p, c_int, POINTER(c_uint64), POINTER(c_uint64))),
    "crypt_dump": (c_int, (c_void_p,)),
    "crypt_dump_json": (c_int, (c_void_p, POINTER(c_char_p), c_uint32)),
    "crypt_activate_by_passphrase": (
        c_int,
        (c_void_p, c_char_p, c_int, c_void_p, c_size_t, c_uint32),
    ),
}


_dlopen = ctypes.CDLL(None).dlopen
_dlopen.restype, _dlopen.argtypes = c_void_p, (c_char_p, c_int)


def _library() -> ctypes.CDLL:
    # Bound as it is used: ctypes binds all of a library's symbols, and those of libcrypto,
    # unless it is there already. That is a twentieth of an opening on a slow machine.
    _dlopen(LIBRARY.encode(), os.RTLD_LAZY)
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise ImmudError(f"{error}; install the package cryptsetup-bin.") from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Failed(ImmudError):
    """The library refused; `errno` is its reason, the text what it said."""

    def __init__(self, what: str, errno: int, said: str) -> None:
        super().__init__(f"{what}: {said or os.strerror(errno)}")
        self.errno = errno


class Header:
    """A LUKS header that was read: a context of the library. Raises Failed throughout."""

    def __init__(self, library: ctypes.CDLL, context: c_void_p, title: str) -> None:
        self._library, self._context, self._title = library, context, title
        self._said: list[tuple[int, str]] = []
        # Kept, for the library holds nothing but its address.
        self._log = _LOG(self._hear)
        library.crypt_set_log_callback(context, self._log, None)

    def _hear(self, level: int, text: bytes, _: object) -> None:
        self._said.append((level, text.decode(errors="replace")))

    def _call(self, what: str, name: str, *arguments: Any) -> int:
        self._said.clear()
        result: int = getattr(self._library, name)(self._context, *arguments)
        if result < 0:
            errors = [text.strip() for level, text in self._said if level == LOG_ERROR]
            raise Failed(what, -result, " ".join(errors))
        return result

    def _text(self, name: str) -> str:
        return self._decoded(getattr(self._library, name)(self._context))

    def _decoded(self, text: bytes | None) -> str:
        """Strictly: what is compared later must not be equal only because it makes no sense."""
        try:
            return (text or b"").decode()
        except UnicodeDecodeError as error:
            raise ImmudError(f"The header on {self._title} makes no sense: {error}.") from error

    def load(self) -> None:
        """Read and check the header, LUKS1 or LUKS2."""
        self._call(f"{self._title} has no readable LUKS header", "crypt_load", None, None)
        if self.type not in ("LUKS1", "LUKS2"):
            raise ImmudError(f"{self._title} is {self.type or 'nothing'}, and not LUKS.")

    @property
    def type(self) -> str:
        return self._text("crypt_get_type")

    @property
    def uuid(self) -> str:
        return self._text("crypt_get_uuid")

    @property
    def cipher(self) -> str:
        """As in the table of the device mapper: `aes-xts-plain64`."""
        return f"{self._text('crypt_get_cipher')}-{self._text('crypt_get_cipher_mode')}"

    @property
    def offset(self) -> int:
        """Where the data begins, in sectors of 512 bytes."""
        return int(self._library.crypt_get_data_offset(self._context))

    @property
    def key_size(self) -> int:
        """The size of the volume key, bytes."""
        return int(self._library.crypt_get_volume_key_size(self._context))

    def sizes(self) -> tuple[int, int]:
        """Bytes of one copy of the metadata, and of all key slot areas."""
        metadata, slots = c_uint64(), c_uint64()
        arguments = (byref(metadata), byref(slots))
        self._call("The header has no size", "crypt_get_metadata_size", *arguments)
        return metadata.value, slots.value

    def slots(self) -> Iterator[tuple[int, int]]:
        """(offset, length) in bytes of the area of every key slot in use."""
        for slot in range(self._library.crypt_keyslot_max(self.type.encode())):
            if self._library.crypt_keyslot_status(self._context, slot) in SLOT_ACTIVE:
                offset, length = c_uint64(), c_uint64()
                arguments = (slot, byref(offset), byref(length))
                self._call(f"Key slot {slot} has no area", "crypt_keyslot_area", *arguments)
                yield offset.value, length.value

    def json(self) -> str:
        """The metadata of LUKS2, as in its specification."""
        text = c_char_p()
        self._call("The header cannot be shown", "crypt_dump_json", byref(text), 0)
        return self._decoded(text.value)

    def dump(self) -> str:
        """What `cryptsetup luksDump` prints."""
        self._call("The header cannot be shown", "crypt_dump")
        return "".join(text for _, text in self._said)

    def set_data(self, path: str) -> None:
        """The header is a copy; the data it describes is on the device `path`."""
        self._call(f"{path} does not fit its header", "crypt_set_data_device", os.fsencode(path))

    def activate(
        self,
        name: str | None,
        secret: "ctypes.Array[ctypes.c_char]",
        length: int,
        *,
        read_only: bool = False,
    ) -> None:
        """Map the data as `name` with the first `length` bytes of `secret`; udev has seen it then.

        Fails with EPERM where the secret is not one of the volume's. Without a name nothing is
        mapped, and only the secret is tried.
        """
        self._call(
            "The volume cannot be unlocked",
            "crypt_activate_by_passphrase",
            os.fsencode(name) if name else None,
            *(ANY_SLOT, secret, length, ACTIVATE_READONLY if read_only else 0),
        )


@contextmanager
def header(path: str, title: str) -> Iterator[Header]:
    """The LUKS header in the file or at the beginning of the device `path`, not read yet.

    Errors call it `title`.
    """
    library, context = _library(), c_void_p()
    result = library.crypt_init(byref(context), os.fsencode(path))
    if result < 0:
        raise Failed(f"{title} cannot be used", -result, "")
    try:
        yield Header(library, context, title)
    finally:
        library.crypt_free(context)
