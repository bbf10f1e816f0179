"""Bodies that come packed (`Content-Encoding: gzip`), unpacked within bounds. Pure.

What is unpacked may be a hundred times the size it came in, and never more than its route takes: a
bomb is put down before it is big.
"""

from __future__ import annotations

import zlib

from headrace.http.problem_details import Unsupported
from headrace.model.errors import Invalid, TooLarge

MAX_RATIO = 100
_GZIP = 16 + zlib.MAX_WBITS


def unpack(encoding: str, body: bytes, limit: int) -> bytes:
    """The body as it was before it was packed.

    Raises:
        Unsupported: It is packed in a way this server does not read.
        Invalid: It is damaged.
        TooLarge: It would be larger than `limit`, or than a hundred times what came.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        raise Unsupported(f"the body is encoded as `{encoding:.40}`; send it as it is, or as gzip")
    bound = min(limit, len(body) * MAX_RATIO)
    inflater = zlib.decompressobj(_GZIP)
    try:
        found = inflater.decompress(body, bound + 1)
    except zlib.error as error:
        raise Invalid(f"the body is not gzip: {error}") from error
    if len(found) > bound:
        raise TooLarge(
            f"the body has more than {bound:,} bytes once it is unpacked; this route takes "
            f"{limit:,}, and a hundred times what was sent"
        )
    if not inflater.eof or inflater.unused_data:
        raise Invalid("the body is not one whole gzip stream; send it in one piece")
    return found
