"""Sizes as people write them."""

from __future__ import annotations

import pytest

from headrace.model.errors import Misuse
from headrace.model.sizes import bytes_in, written_size


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (0, 0),
        (4_096, 4_096),
        ("4096", 4_096),
        ("512B", 512),
        ("512KiB", 512 << 10),
        ("64MiB", 64 << 20),
        ("64 MiB", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("1TiB", 1 << 40),
        ("10kB", 10_000),
        ("10KB", 10_000),
        ("10MB", 10_000_000),
        ("2GB", 2_000_000_000),
        ("1TB", 10**12),
    ],
)
def test_a_size_is_read(size: object, count: int) -> None:
    assert bytes_in(size, "it", low=0, high=1 << 50) == count


@pytest.mark.parametrize(
    "size",
    ["", "big", "64mb", "64 M", "MiB", "-1MiB", "1e3", "٣MiB", 1.5, True, None, [5], "9" * 99],
)
def test_what_is_not_a_size_is_refused(size: object) -> None:
    with pytest.raises(Misuse, match=r'^`it` is .*; write bytes, or a text such as "512KiB"'):
        bytes_in(size, "`it`", low=0, high=1 << 50)


@pytest.mark.parametrize("size", [-1, "1KiB", "9TB", 10**400])
def test_a_size_out_of_range_is_refused(size: object) -> None:
    with pytest.raises(Misuse, match="out of range; use 2,048 to 1,048,576 bytes"):
        bytes_in(size, "`it`", low=2_048, high=1 << 20)


def test_a_number_that_python_does_not_write_out_is_refused() -> None:
    with pytest.raises(Misuse, match="`it` is a larger number of bytes, which is out of range"):
        bytes_in(10**5_000, "`it`", low=0, high=1 << 20)


@pytest.mark.parametrize("size", [0, 1, 1_023, 1_024, 1_025, 4 << 20, 3 << 29, 1 << 40, 1 << 60])
def test_a_size_is_written_as_it_is_read(size: int) -> None:
    assert bytes_in(written_size(size), "it", low=0, high=1 << 60) == size
    assert written_size(4 << 20) == "4MiB"
