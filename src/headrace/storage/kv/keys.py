"""Keys of the ordered maps: tuples of text and numbers as bytes that sort the same way.

Text ends with 00 (an inner 00 becomes 00 FF), numbers are 8 bytes big-endian, so that a prefix of
the tuple is a prefix of the key. The idea is FoundationDB's tuple layer, reduced to what is needed.
"""

from __future__ import annotations


def pack(*parts: str | bytes | int) -> bytes:
    """The key of a tuple; integers must be from 0 to 2**63 - 1."""
    out = bytearray()
    for part in parts:
        if isinstance(part, int):
            # Big-endian and unsigned: bytes then compare as the numbers do. A sign bit would sort
            # negative numbers last, so they are not allowed.
            out += part.to_bytes(8, "big")
        else:
            raw = part.encode() if isinstance(part, str) else part
            # An inner zero byte is escaped, else ("a\0b",) would have the same key as ("a", "b").
            out += raw.replace(b"\x00", b"\x00\xff") + b"\x00"
    return bytes(out)


def after(prefix: bytes) -> bytes | None:
    """The smallest key above every key that starts with `prefix`; None where there is none."""
    # A byte FF cannot be increased: the byte before it is, as with a carry.
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None
