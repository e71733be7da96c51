"""The little of HTTP/1 that a scraper speaks: one request without a body, one answer, and the end. Pure."""

from __future__ import annotations

import ipaddress

__all__ = ["HEAD_MAX", "answer", "asked"]

HEAD_MAX = 8192
"""Bytes of a request line and its headers."""
_REASONS = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


def asked(head: bytes) -> tuple[str, str] | int:
    """Return the method and the path of a request, or the status with which it is refused.

    The host that the client names must be loopback: a page in somebody's browser whose name leads here names another.
    """
    lines = head.decode("latin-1").splitlines()
    words = lines[0].split(" ") if lines else []
    if len(words) != 3 or not words[1].startswith("/") or not words[2].startswith("HTTP/1."):
        return 400
    hosts = [line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("host:")]
    if len(hosts) > 1 or (not hosts and words[2] != "HTTP/1.0"):
        return 400
    if hosts and not _is_here(hosts[0]):
        return 403
    if words[0] not in ("GET", "HEAD"):
        return 405
    return words[0], words[1].partition("?")[0]


def _is_here(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def answer(
    status: int, kind: str = "text/plain; charset=utf-8", body: bytes = b"", *, only_head: bool = False
) -> bytes:
    """Return an answer whole; an error without a `body` says what it is."""
    reason = _REASONS.get(status, "Status")
    body = body or f"{status} {reason}\n".encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += ["Allow: GET, HEAD"] if status == 405 else []
    lines += ["Cache-Control: no-store", "X-Content-Type-Options: nosniff", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (b"" if only_head else body)
