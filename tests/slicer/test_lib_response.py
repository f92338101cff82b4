"""Replies as bytes: cut anywhere they read the same, and what is no reply is refused in words."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib.failures import TransportError
from Any2allLib.response import ResponseReader

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1;name=value\r\no\r\n0\r\nTrailer: yes\r\n\r\n"
)


@pytest.mark.parametrize(
    "raw, body",
    [
        (OK, b"hello"),
        (CHUNKED, b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_any_cut_of_a_reply_reads_the_same(raw, body, size):
    reader = ResponseReader()
    for start in range(0, len(raw), size):
        reader.feed(raw[start : start + size])
    if reader.reply is None:
        reader.end()
    assert reader.reply.body == body


@pytest.mark.parametrize(
    "raw, code, words",
    [
        (b"SSH-2.0-OpenSSH\r\n", "not_http", "port"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "not_http", "https://"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "not_http", "length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "not_http", "length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "not_http", "chunked"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "not_http", "gzip"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000, "not_http", "without end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"b" * 101, "too_large", "100 bytes"),
    ],
)
def test_bad_replies_are_named(raw, code, words):
    reader = ResponseReader(memory_limit=100)
    with pytest.raises(TransportError) as caught:
        reader.feed(raw)
    assert caught.value.code == code and words in caught.value.sentence()


def test_no_reply_makes_the_reader_fail_in_another_way():
    """Replies with random bytes changed are read, wait for more, or are refused in words."""
    random, refused = Random(0), 0
    for number in range(1500):
        raw = bytearray(CHUNKED if number % 2 else OK)
        for _ in range(random.randint(1, 4)):
            raw[random.randrange(len(raw))] = random.choice(b"\r\n:; 0129aF\x00\xff")
        reader = ResponseReader(memory_limit=100)
        try:
            reader.feed(bytes(raw))
            if reader.reply is None:
                reader.end()
        except TransportError as failure:
            refused += bool(failure.sentence())
    assert 300 < refused < 1500
