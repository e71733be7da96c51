"""Files from node to node, each over a stream of its own.

The sender opens the stream ``mycorrizal/file``, writes ``u32 length`` and a
value ``[name, size or null]``, then the bytes, and ends its half. The receiver
answers with ``u32 length`` and a value ``[code, text]`` once the file stands
under its name; code 0 is that, 1 that it could not be stored.
"""

from __future__ import annotations

import io
import os
import threading
import unicodedata
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..._endings import Ending, error, for_call
from ..._wire.frames import Close
from ..._wire.values import decode_packed, encode_value
from ...exceptions import (
    ConfigError,
    MycorrizalError,
    OperationTimeout,
    PeerUnreachable,
    RemoteError,
    RemoteProtocolError,
    ValueTooLarge,
)
from ...types import ReceivedFile
from ..host.filepaths import path_text
from ..threads import clock
from ..threads.deadline import Deadline
from ..threads.futures import Waiter
from ..threads.shortage import as_ours, exhausted
from .streams import RESERVED, Stream, open_stream
from .tickets import Progress

if TYPE_CHECKING:
    from .core import Core

__all__ = ["Arrivals", "Folder", "Source", "receive_file", "safe_name", "send_file"]

FILE = RESERVED + "file"
WAITING_MAX = 4
"""Files that may wait for ``receive_file``; further ones are refused as busy."""
NAME_MAX = 200
"""Bytes of UTF-8 in a file's name; file systems take 255, and " (2)" must fit."""

_HEADER_MAX = 4096
_PIECE = 1 << 20
_PROGRESS_SECONDS = 0.05
_VERDICT_SECONDS = 2.0

Folder = str | os.PathLike[str]
Source = str | os.PathLike[str] | BinaryIO
"""A path, or a file opened for reading bytes."""


class Arrivals:
    """Incoming files that nobody has taken yet: a few, and each for a limited time. Goes with one core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: deque[Stream] = deque()
        self._takers: deque[Waiter] = deque()
        self._lock = threading.RLock()
        self._closed = False
        core.streams.reserved[FILE] = self.offer

    def __len__(self) -> int:
        return len(self._waiting)

    # -- the loop thread --------------------------------------------------------------------

    def offer(self, stream: Stream) -> bool:
        """Take a stream; False if too many wait."""
        with self._lock:
            if self._hand(stream):
                return True
            self._drop_broken()
            if self._closed or len(self._waiting) >= WAITING_MAX:
                return False
            self._waiting.append(stream)
        self._watch(stream, clock.now())
        return True

    def _watch(self, stream: Stream, now: float) -> None:
        self._core.loop.call_at(now + self._core.config.stall_timeout, partial(self._expire, stream))

    def _expire(self, stream: Stream, now: float) -> None:
        with self._lock:
            if stream not in self._waiting:
                return
            self._waiting.remove(stream)
        self._core.count("files.expired")
        stream.cancel(Close.FULL)

    def _drop_broken(self) -> None:
        """Let go of files whose senders have given up."""
        for stream in [stream for stream in self._waiting if stream.lost]:
            self._waiting.remove(stream)

    # -- any thread -------------------------------------------------------------------------

    def _hand(self, stream: Stream) -> bool:
        """Return whether somebody waited for a file, and has it now. Under the lock."""
        while self._takers:
            if self._takers.popleft().set(stream):
                return True
        return False

    def take(self, deadline: Deadline) -> Stream:
        """Return the oldest that waits, or the next that comes.

        Raises:
            OperationTimeout: none came. NotRunningError, ServiceCrashed: closed.
        """
        taker = Waiter()
        with self._lock:
            self._drop_broken()
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                raise self._core.refusal()
            self._takers.append(taker)
        try:
            with self._core.pool.waiting():
                taker.wait(deadline)
        except BaseException:
            self._give_back(taker)
            raise
        with self._lock:
            taker.set(None)  # from now on nothing is handed to it
            if taker in self._takers:
                self._takers.remove(taker)
            if isinstance(taker.outcome, Stream):
                return taker.outcome
            if self._closed:
                raise self._core.refusal()
        raise OperationTimeout("no file came in time", operation="receive_file")

    def _give_back(self, taker: Waiter) -> None:
        """Whoever waited does so no longer, as after Ctrl-C: a file that was handed over is the next one's."""
        with self._lock:
            if taker.set(None):
                self._takers.remove(taker)
                return
            stream = taker.outcome
            if not isinstance(stream, Stream) or self._hand(stream):
                return
            self._waiting.appendleft(stream)
        self._core.submit(partial(self._watch, stream))

    def close(self) -> None:
        """Nothing comes any more: whoever waits hears of it."""
        with self._lock:
            self._closed = True
            while self._takers:
                self._takers.popleft().set(None)


# -- sending (a caller's thread) --------------------------------------------------------------


def send_file(
    core: Core, node: str, source: Source, name: str | None, timeout: float | None, progress: Progress | None
) -> int:
    """Send one file; see ``DataPlane.send_file``."""
    if name is not None and not isinstance(name, str):
        raise ConfigError("name", f"must be text, not {type(name).__name__}")
    if isinstance(source, (str, os.PathLike)) or not hasattr(source, "read"):
        path = path_text("file", source, " or a file opened for reading bytes")
        with as_ours("the file cannot be opened", operation="send_file"):
            opened = open(path, "rb")  # noqa: SIM115 - closed below
        with opened as file:
            return _send(core, node, file, name or os.path.basename(path), timeout, progress)
    if name is None:
        called = getattr(source, "name", None)
        name = os.path.basename(called) if isinstance(called, str) else "file"
    return _send(core, node, source, name, timeout, progress)


def _send(
    core: Core, node: str, file: BinaryIO, name: str, timeout: float | None, progress: Progress | None
) -> int:
    size = _size(file)
    deadline = core.deadline(timeout)
    name = name.encode("utf-8", "replace")[:_HEADER_MAX // 2].decode("utf-8", "replace")
    ended = False
    try:
        with open_stream(core, node, FILE, deadline.remaining(), ours=True) as stream:
            try:
                _put(stream, [name, size], deadline)
                sent = _copy_out(stream, file, size, deadline, progress)
                stream.close_write()
                ended = True
                _verdict(stream, deadline)
            except PeerUnreachable:
                if not ended:
                    _reason(stream)
                raise
    except OperationTimeout:
        raise error(
            Ending.TIMEOUT,
            f"{node} has not taken the file within {timeout} s",
            sent=ended,
            node=node,
            operation="send_file",
            hint="it must call receive_file(), or the network is slow",
        ) from None
    except MycorrizalError as exc:  # a part of a file is stored nowhere
        raise for_call(exc, ended, operation="send_file") from exc.__cause__
    if progress is not None:
        progress(sent, sent)
    return sent


def _size(file: BinaryIO) -> int | None:
    """Return the bytes from here to the end; None for what cannot be asked, such as a pipe."""
    try:
        here = file.tell()
        end = file.seek(0, io.SEEK_END)
        file.seek(here)
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return None
    return max(0, end - here)


def _copy_out(
    stream: Stream, file: BinaryIO, size: int | None, deadline: Deadline, progress: Progress | None
) -> int:
    sent, told = 0, clock.now()
    while size is None or sent < size:
        data = file.read(_PIECE if size is None else min(_PIECE, size - sent))
        if not isinstance(data, bytes):
            raise TypeError(f"the file must be open for reading bytes, not {type(data).__name__}")
        if not data:
            if size is not None:
                raise OSError(f"the file ended after {sent} of {size} bytes: it was changed while it was sent")
            break
        stream.timeout = deadline.remaining()
        stream.write(data)
        sent += len(data)
        if progress is not None and clock.now() - told >= _PROGRESS_SECONDS:
            told = clock.now()
            progress(max(0, sent - stream.pending), size or 0)
    return sent


def _verdict(stream: Stream, deadline: Deadline) -> None:
    """Read what became of the file."""
    code, text = _get(stream, deadline, (int, str))
    if code != 0:
        raise RemoteError(
            f"{stream.node} could not store the file: {text}", kind="OSError", text=str(text), node=stream.node
        )


def _reason(stream: Stream) -> None:
    """Raise what the receiver said before it stopped to read, if it said anything."""
    try:
        _verdict(stream, Deadline(_VERDICT_SECONDS))
    except (PeerUnreachable, OperationTimeout, RemoteProtocolError):
        pass


# -- receiving (a caller's thread) --------------------------------------------------------------


def receive_file(
    core: Core, directory: Folder, timeout: float | None, progress: Progress | None, limit: int | None
) -> ReceivedFile:
    """Receive one file; see ``DataPlane.receive_file``."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise ConfigError("limit", f"{limit!r:.80} is no number of bytes", hint="e.g. 1 << 30; None for any size")
    folder = path_text("directory", directory)
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"{folder} is no directory")
    deadline = core.deadline(timeout)
    while True:
        stream = core.files.take(deadline)
        with stream:
            patience = core.config.stall_timeout
            try:
                name, size = _get(stream, Deadline(patience), (str, (int, type(None))))
                if isinstance(size, int) and size < 0:
                    raise RemoteProtocolError("a file of negative size")
            except RemoteProtocolError as error:
                stream.abort()
                core.submit(partial(core.machine.bad_value, stream.node, error))
                continue
            stream.timeout = patience
            assert isinstance(name, str) and (size is None or isinstance(size, int))
            try:
                return _receive(stream, folder, safe_name(name), size, progress, limit)
            except MycorrizalError as exc:  # a part of a file is stored nowhere
                raise for_call(exc, False, operation="receive_file") from exc.__cause__


def _receive(
    stream: Stream, folder: str, name: str, size: int | None, progress: Progress | None, limit: int | None
) -> ReceivedFile:
    part = os.path.join(folder, f".mycorrizal-{os.urandom(8).hex()}.part")
    try:
        try:
            _check_size(stream, size or 0, limit)
            with open(part, "xb") as file:
                got = _copy_in(stream, file, size, progress, limit)
            path = _place(part, folder, name)
        except BaseException:
            _remove(part)
            raise
    except ValueTooLarge as error:
        _answer(stream, 1, str(error))
        raise
    except OSError as error:
        if not isinstance(error, MycorrizalError):  # of this disk: the sender should know
            _answer(stream, 1, f"{type(error).__name__}: {error.strerror or error}")
            short = exhausted(error, f"a file from {stream.node} cannot be kept", operation="receive_file")
            if short is not None:
                raise short from error
        raise
    try:
        _answer(stream, 0, "")
    except MycorrizalError:
        pass  # we have it; the sender hears that it cannot know
    if progress is not None:
        progress(got, got)
    return ReceivedFile(Path(path), name, stream.node, got)


def _check_size(stream: Stream, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ValueTooLarge(f"a file of {stream.node} of {size} bytes or more; {limit} are the most", node=stream.node)


def _copy_in(
    stream: Stream, file: BinaryIO, size: int | None, progress: Progress | None, limit: int | None
) -> int:
    got, told = 0, clock.now()
    while data := stream.read(_PIECE):
        file.write(data)
        got += len(data)
        _check_size(stream, got, limit)
        if size is not None and got > size:
            break
        if progress is not None and clock.now() - told >= _PROGRESS_SECONDS:
            told = clock.now()
            progress(got, size or 0)
    if size is not None and got != size:
        raise RemoteProtocolError(f"a file of {size} bytes that came with {got}", node=stream.node)
    return got


def _answer(stream: Stream, code: int, text: str) -> None:
    try:
        _put(stream, [code, text[:1000]], Deadline(_VERDICT_SECONDS))
        stream.close()
    except MycorrizalError:
        if not code:
            raise


def _place(part: str, folder: str, name: str) -> str:
    """Give the file its name, or the next one that is free; never another file's."""
    stem, extension = os.path.splitext(name)
    number = 1
    while True:
        path = os.path.join(folder, name if number == 1 else f"{stem} ({number}){extension}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # only one can make it: it is ours now
        except FileExistsError:
            number += 1
            continue
        try:
            os.replace(part, path)
        except BaseException:
            _remove(path)
            raise
        return path


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def safe_name(name: str) -> str:
    """Return `name`, which a peer chose, as one that stays in its directory and can be read.

    Separators of any system, control and format characters become "_".
    """
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if char in _UNSAFE or unicodedata.category(char)[0] == "C" else char for char in name)
    name = name.strip().rstrip(".") or "file"
    stem, extension = os.path.splitext(name)
    if len(extension.encode()) > 32:
        stem, extension = name, ""
    if stem.partition(".")[0].rstrip().upper() in _DEVICES:
        stem = "_" + stem
    room = NAME_MAX - len(extension.encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip() + extension


_UNSAFE = frozenset('/\\:*?"<>|' if os.name == "nt" else "/\\")
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))]
    if os.name == "nt"
    else []
)


# -- values on a stream ------------------------------------------------------------------------


def _put(stream: Stream, value: object, deadline: Deadline) -> None:
    data = encode_value(value).pack()
    stream.timeout = deadline.remaining()
    stream.write(len(data).to_bytes(4, "big") + data)


def _get(stream: Stream, deadline: Deadline, kinds: tuple[type | tuple[type, ...], ...]) -> list[object]:
    """Return a list of values of these types.

    Raises:
        RemoteProtocolError: something else came, or the end.
    """
    size = int.from_bytes(_exactly(stream, 4, deadline), "big")
    if size > _HEADER_MAX:
        raise RemoteProtocolError(f"a header of {size} bytes")
    value = decode_packed(_exactly(stream, size, deadline))
    if not isinstance(value, list) or len(value) < len(kinds):
        raise RemoteProtocolError("a header that is none")
    found = value[: len(kinds)]
    if not all(isinstance(item, kind) for item, kind in zip(found, kinds, strict=True)):
        raise RemoteProtocolError("a header that is none")
    return found


def _exactly(stream: Stream, size: int, deadline: Deadline) -> bytes:
    found = b""
    while len(found) < size:
        stream.timeout = deadline.remaining()
        data = stream.read(size - len(found))
        if not data:
            raise RemoteProtocolError("a stream that ends in a header", node=stream.node)
        found += data
    return found
