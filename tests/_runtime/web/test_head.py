"""The request of a scraper, and whatever else is sent to its port."""

from __future__ import annotations

import pytest

from mycorrizal._runtime.web.head import answer, asked


@pytest.mark.parametrize("host", ["127.0.0.1:9464", "localhost", "LOCALHOST:1", "[::1]:9464", "127.3.2.1"])
def test_a_scraper_is_understood(host: str) -> None:
    assert asked(f"GET /metrics?x=1 HTTP/1.1\r\nHost: {host}\r\nAccept: */*".encode()) == ("GET", "/metrics")


def test_http_1_0_needs_no_host() -> None:
    assert asked(b"HEAD /healthz HTTP/1.0") == ("HEAD", "/healthz")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400), (b"GET", 400), (b"GET /", 400), (b"GET  / HTTP/1.1", 400), (b"GET / HTTP/2.0", 400),
        (b"GET http://a/ HTTP/1.1", 400), (b"\xff\xfe\x00", 400), (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400), (b"GET / HTTP/1.1\r\nHost: evil.example", 403),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example", 403), (b"GET / HTTP/1.1\r\nhost:", 403),
        (b"GET / HTTP/1.0\r\nHost: 10.0.0.1", 403), (b"GET / HTTP/1.1\r\nHost: localhost.evil.example:80", 403),
        (b"POST / HTTP/1.1\r\nHost: localhost", 405), (b"\x16\x03\x01 / HTTP/1.1\r\nHost: localhost", 405),
    ],
)  # fmt: skip
def test_what_is_none_has_a_status(head: bytes, status: int) -> None:
    assert asked(head) == status


def test_an_answer_is_whole() -> None:
    head, _, body = answer(200, "text/x", b"abc").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 3\r\n") and body == b"abc"
    assert answer(200, "text/x", b"abc", only_head=True) == head + b"\r\n\r\n"
    assert b"\r\nAllow: GET, HEAD\r\n" in answer(405) and answer(405).endswith(b"\r\n\r\n405 Method Not Allowed\n")
