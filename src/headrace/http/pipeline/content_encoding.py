"""Decompression of bodies with `Content-Encoding: gzip`, within bounds. Pure.

A body may grow a hundredfold, and never beyond its route's limit: decompression stops at the bound, so a
decompression bomb does not fill the memory.
"""

from __future__ import annotations

import zlib

from headrace.http.problem_details import Unsupported
from headrace.model.errors import Invalid, TooLarge

MAX_RATIO = 100
_GZIP = 16 + zlib.MAX_WBITS


def unpack(encoding: str, body: bytes, limit: int) -> bytes:
    """Return the body as it was before compression.

    Raises:
        Unsupported: The encoding is not gzip.
        Invalid: It is damaged.
        TooLarge: It would be larger than `limit` bytes, or than a hundred times what was sent.
    """
    # Names of codings are case-insensitive (RFC 9110, section 8.4.1).
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        raise Unsupported(f"the body is encoded as `{encoding:.40}`; send it as it is, or as gzip")
    bound = min(limit, len(body) * MAX_RATIO)
    inflater = zlib.decompressobj(_GZIP)
    try:
        # One byte more than allowed shows a body at the bound from one beyond it.
        found = inflater.decompress(body, bound + 1)
    except zlib.error as error:
        raise Invalid(f"the body is not gzip: {error}") from error
    if len(found) > bound:
        raise TooLarge(
            f"the body has more than {bound:,} bytes once it is unpacked; this route takes "
            f"{limit:,}, and a hundred times what was sent"
        )
    # gzip allows several members in a row (RFC 1952, section 2.2). Only the first would be
    # bounded here, so the others are refused rather than dropped.
    if not inflater.eof or inflater.unused_data:
        raise Invalid("the body is not one whole gzip stream; send it in one piece")
    return found
