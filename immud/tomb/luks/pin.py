"""The pin: what of a LUKS header stays the same for as long as the volume does. Pure.

Passphrases, key slots and tokens come and go; the digest of the volume key does
not, nor how and where the data is encrypted. Both are readable without a key,
and only who knows the volume key could make another volume with this digest
that opens. Field names are those of the LUKS2 On-Disk Format Specification.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from immud.errors import ImmudError

Fields = tuple[tuple[str, str], ...]

# Ciphers that are none: any header can be rewritten to say so, and every key still fits.
_NULL = re.compile(r"(capi:)?((ecb|cbc|xts|ctr)\()?(cipher_)?null\b|cipher_null")
_TYPES = ("LUKS1", "LUKS2")


@dataclass(frozen=True, slots=True)
class Pin:
    """What an enrolled volume is known by.

    `digest` is the header's own digest of the volume key, `segment` how and where
    the data is encrypted, both flat: an object in an object is `integrity.type`.
    `file_system` is the UUID of the file system inside, empty while it is not known.
    """

    type: str
    uuid: str
    digest: Fields
    segment: Fields
    requirements: tuple[str, ...] = ()
    file_system: str = ""

    @property
    def cipher(self) -> str:
        """As in the table of the device mapper: `aes-xts-plain64`."""
        return dict(self.segment).get("encryption", "")

    @property
    def offset(self) -> int:
        """Where the data begins, in sectors of 512 bytes."""
        return int(dict(self.segment)["offset"]) // 512

    @property
    def sector_size(self) -> int:
        """Bytes."""
        return int(dict(self.segment).get("sector_size", "512"))

    @property
    def iv_tweak(self) -> int:
        """The number the first sector is encrypted as."""
        return int(dict(self.segment).get("iv_tweak", "0"))


class Unreadable(ImmudError):
    """A header, or a file of ours, that makes no sense."""


def _flat(value: Mapping[str, Any], within: str = "") -> Fields:
    found: list[tuple[str, str]] = []
    for name, item in value.items():
        inner = {str(at): i for at, i in enumerate(item)} if isinstance(item, list) else item
        if isinstance(inner, dict):
            found += _flat(inner, f"{within}{name}.")
        else:
            found.append((within + name, str(inner)))
    return tuple(sorted(found))


def from_luks2(text: str, uuid: str) -> Pin:
    """The pin of a LUKS2 volume, from its metadata as JSON. Raises Unreadable."""
    try:
        metadata = json.loads(text)
        segments, digests = metadata["segments"], metadata["digests"]
        requirements = metadata["config"].get("requirements", {}).get("mandatory", [])
        if len(segments) != 1 or any("reencrypt" in item for item in requirements):
            raise Unreadable(
                "The volume is being encrypted anew; finish that first: cryptsetup reencrypt"
            )
        ((number, segment),) = segments.items()
        (digest,) = (d for d in digests.values() if number in d["segments"])
        digest = {k: v for k, v in digest.items() if k not in ("keyslots", "segments")}
        pin = Pin("LUKS2", uuid, _flat(digest), _flat(segment), tuple(map(str, requirements)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"The LUKS2 metadata makes no sense: {error!r}.") from error
    return _sane(pin)


_LUKS1 = {"digest": "MK digest", "salt": "MK salt", "iterations": "MK iterations"}


def from_luks1(dump: str, uuid: str, cipher: str, offset: int, key_size: int) -> Pin:
    """The pin of a LUKS1 volume, from `cryptsetup luksDump`. Raises Unreadable.

    `offset` is in sectors of 512 bytes, `key_size` in bytes.
    """
    digest = [("hash", _only(dump, "Hash spec", r"[\w-]+"))]
    for name, title in _LUKS1.items():
        pattern = r"[0-9]+" if name == "iterations" else r"(?:[0-9a-f]{2}\s+)+"
        digest.append((name, " ".join(_only(dump, title, pattern).split())))
    segment = {
        "type": "crypt",
        "encryption": cipher,
        "offset": offset * 512,
        "key_size": key_size,
    }
    return _sane(Pin("LUKS1", uuid, tuple(sorted(digest)), _flat(segment)))


def _only(dump: str, title: str, pattern: str) -> str:
    """The value of the only line called `title`: a cipher's name may hold a line of its own."""
    found = re.findall(rf"^{title}:[ \t]*({pattern})", dump, re.MULTILINE)
    if len(found) != 1 or len(re.findall(rf"{title}:", dump)) != 1:
        raise Unreadable(f"The LUKS1 header has no one {title}.")
    return str(found[0])


def _sane(pin: Pin) -> Pin:
    """`pin`, if all that is compared later is there and of its kind."""
    digest, segment = dict(pin.digest), dict(pin.segment)
    texts = (pin.uuid, *digest.values(), *segment.values(), *pin.requirements)
    numbers = [segment.get(name, "0") for name in ("sector_size", "iv_tweak")]
    numbers.append(segment.get("offset", ""))
    if (
        pin.type not in _TYPES
        or not pin.uuid
        or not digest.get("digest")
        or not segment.get("type")
        or not all(text.isprintable() for text in texts)
        or not all(re.fullmatch(r"[0-9]{1,18}", number, re.ASCII) for number in numbers)
    ):
        raise Unreadable("The LUKS header makes no sense: something that it must say is missing.")
    return pin


def unencrypted(cipher: str) -> bool:
    """Whether a cipher, as in a header or a table, is one that leaves everything readable."""
    return not cipher or bool(_NULL.match(cipher))


def refusal(found: Pin) -> str:
    """Why a volume is not opened whatever is pinned, as the end of a text; mostly empty."""
    segment = dict(found.segment)
    if segment["type"] != "crypt" or unencrypted(found.cipher):
        how = found.cipher or segment["type"]
        return f"it is not encrypted ({how}). Do not store anything on it"
    if any(name.startswith("integrity") for name in segment):
        return "its sectors are authenticated (dm-integrity), which immud does not open"
    return ""


def differences(pin: Pin, found: Pin) -> tuple[str, ...]:
    """What of `found` is not as pinned, each as a phrase. The file system is not looked at."""
    said: list[str] = []
    if found.uuid != pin.uuid:
        said.append(f"its UUID is {found.uuid} and not {pin.uuid}")
    if found.type != pin.type:
        said.append(f"it is {found.type} and not {pin.type}")
    if found.digest != pin.digest:
        said.append("its volume key is another one")
    if found.requirements != pin.requirements:
        names = [", ".join(p.requirements) or "nothing" for p in (found, pin)]
        said.append(f"it requires {names[0]} and not {names[1]}")
    new, old = dict(found.segment), dict(pin.segment)
    for name in sorted({*new, *old}):
        if new.get(name) != old.get(name):
            values = [fields.get(name, "not given") for fields in (new, old)]
            said.append(f"the {name} of its data is {values[0]} and not {values[1]}")
    return tuple(said)


def dumps(pin: Pin) -> str:
    """The pin as a file for people and programs to read."""
    value = {
        "type": pin.type,
        "uuid": pin.uuid,
        "digest": dict(pin.digest),
        "segment": dict(pin.segment),
        "requirements": list(pin.requirements),
        "file_system": pin.file_system,
    }
    return json.dumps(value, indent=2) + "\n"


def loads(text: str) -> Pin:
    """The pin that `dumps` wrote. Raises Unreadable."""
    try:
        value = json.loads(text)
        pin = Pin(
            value["type"],
            value["uuid"],
            _flat(value["digest"]),
            _flat(value["segment"]),
            tuple(map(str, value["requirements"])),
            value["file_system"],
        )
        return replace(_sane(pin), file_system=str(pin.file_system))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"it makes no sense ({error!r})") from error
