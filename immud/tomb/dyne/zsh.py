"""What `print` of zsh makes of a text. Pure.

Dyne's tomb hands its passphrases to gpg through it, escapes and all.
"""

import re
from collections.abc import Iterator

_ONE = dict(zip(b"abefnrtvE", b"\a\b\x1b\f\n\r\t\v\x1b", strict=True))
_HEX = rb"[0-9A-Fa-f]"
_OCTAL = re.compile(rb"[0-7]{1,3}")
_DIGITS = {
    ord("x"): re.compile(_HEX + rb"{0,2}"),
    ord("u"): re.compile(_HEX + rb"{0,4}"),
    ord("U"): re.compile(_HEX + rb"{0,8}"),
}


def printed(text: bytes) -> bytes:
    """`text` as `print - TEXT` writes it (zshbuiltins(1)), but for the newline after it."""
    return b"".join(_pieces(text))


def _pieces(text: bytes) -> Iterator[bytes]:
    at, control, meta = 0, False, False
    while at < len(text):
        piece, at = text[at : at + 1], at + 1
        if piece == b"\\" and at < len(text):
            letter, at = text[at], at + 1
            if letter == ord("c"):
                return
            if letter in b"MC":
                # Control and meta are for whatever comes next, which may be an escape again.
                meta, control = meta or letter == ord("M"), control or letter == ord("C")
                at += text[at : at + 1] == b"-"
                continue
            piece, at = _escape(text, letter, at)
        if control:
            piece = b"\x7f" if piece == b"?" else bytes((piece[0] & 0x9F,)) + piece[1:]
        if meta:
            piece = bytes((piece[0] | 0x80,)) + piece[1:]
        control = meta = False
        yield piece


def _escape(text: bytes, letter: int, at: int) -> tuple[bytes, int]:
    """The bytes of the escape with `letter`, which ends before `at`, and where it ends."""
    if digits := _OCTAL.match(text, at - 1):
        return bytes((int(digits[0], 8) & 0xFF,)), digits.end()
    if letter not in _DIGITS:
        return bytes((_ONE.get(letter, letter),)), at
    digits = _DIGITS[letter].match(text, at)
    assert digits
    number = int(digits[0] or b"0", 16)
    if letter == ord("x"):
        return bytes((number,)), digits.end()
    return (chr(number).encode(errors="replace") if number < 0x110000 else b"?"), digits.end()
