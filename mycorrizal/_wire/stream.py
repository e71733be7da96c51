"""One conversation over a stream: a message out, at most one back, and how each looks in bytes.

``StreamCodec`` writes a whole message; ``StreamReader`` takes bytes as they come
and says when a message is complete. Neither touches a socket or a clock; the
time limit is the driver's.

The answer of the accepting side carries no label header, though its label is
authenticated all the same: hence the ``answer`` flag on both.

From: memberlist-protocol §3.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from ..config import META_MAX_SIZE, Config
from ..exceptions import DecryptError, LocalProtocolError, RemoteProtocolError, WireMismatch
from . import limits
from .codec import B, BodyCodec, IncompleteError, body_codec, encode_message, numbered
from .compression import compress_message, decompress_message
from .label import add_label, check_label, label_bytes, peel_label
from .messages import (
    AckResp,
    Compress,
    Err,
    Message,
    MessageType,
    NumberedHeader,
    Ping,
    PushNodeState,
    PushPull,
    PushPullHeader,
    User,
    UserMsgHeader,
)
from .security import Keyring, decrypt_payload, encrypt_payload, encrypted_length, encryption_version

__all__ = ["StreamCodec", "StreamReader"]

_ENCRYPTED_HEADER_BYTES = 5  # type byte and a 4-byte length, authenticated with the payload
_OPENING = frozenset({MessageType.PING, MessageType.PUSH_PULL, MessageType.USER})
_ANSWERS = frozenset({MessageType.ACK_RESP, MessageType.PUSH_PULL, MessageType.ERR})

_PIECE = 1 << 18  # what waits is kept in pieces: one buffer that grows is copied about, and leaves holes in the heap
_WINDOW = 4 * limits.STREAM_BODY_MAX
"""Bytes copied out of the buffer to decode member records from: several longest ones."""

_Steps = Generator[int, None, None]
"""A parser yields how many bytes the buffer must hold before it can go on."""


class StreamCodec:
    """Messages of one node on streams. Holds no state between conversations: any thread may use it."""

    def __init__(self, config: Config, keyring: Keyring, nonce: Callable[[], bytes]) -> None:
        self.body: BodyCodec = body_codec(config.wire)
        self.keyring = keyring
        self.label = label_bytes(config.label)
        self.skip_label_check = config.skip_inbound_label_check
        self.verify_incoming = config.gossip_verify_incoming
        self._verify_outgoing = config.gossip_verify_outgoing
        self._compress = config.enable_compression
        # Differs from memberlist: twice what our own table may hold is refused too, before it is decoded.
        self.nodes_max = min(limits.PUSH_PULL_NODES_MAX, max(2 * config.max_nodes, limits.PUSH_PULL_NODES_FLOOR))
        self._version = encryption_version(config.protocol_version)
        self._nonce = nonce

    def seal(self, message: Message, *, answer: bool) -> bytes:
        """Return the bytes of a whole message.

        Args:
            answer: we were dialled; no label header then.

        Raises:
            LocalProtocolError: no message for streams, or longer than a receiver takes.
        """
        frame = self._plain(message)
        # On streams the compressed form is used even where it is longer.
        # Differs from memberlist: very long messages go uncompressed, for the time it would take.
        if self._compress and len(frame) <= limits.STREAM_COMPRESS_MAX:
            frame = compress_message(self.body, frame)
        key = self.keyring.primary
        if key is not None and self._verify_outgoing:
            size = encrypted_length(self._version, len(frame))
            if size > limits.ENCRYPTED_FRAME_MAX:
                raise LocalProtocolError(f"{size} bytes encrypted; receivers take {limits.ENCRYPTED_FRAME_MAX}")
            header = bytes((MessageType.ENCRYPT,)) + size.to_bytes(4, "big")
            frame = header + encrypt_payload(self._version, key, frame, header + self.label, self._nonce())
        return frame if answer else add_label(self.label, frame)

    def reader(self, *, answer: bool) -> StreamReader:
        """Return a reader for one message.

        Args:
            answer: we dialled and read the reply, which has no label header.
        """
        return StreamReader(self, answer=answer)

    def _plain(self, message: Message) -> bytes:
        if isinstance(message, PushPull):
            return self._push_pull(message)
        if isinstance(message, User):
            _bounded(len(message.data), limits.USER_BYTES_MAX, "a user message", LocalProtocolError)
            if message.boot:
                return encode_message(self.body, message)
            header = self.body.encode(UserMsgHeader(len(message.data)))
            return b"".join((bytes((MessageType.USER,)), header, message.data))
        if isinstance(message, (Ping, AckResp, Err)):
            return encode_message(self.body, message)
        raise LocalProtocolError(f"{type(message).__name__} does not travel on streams")

    def _push_pull(self, message: PushPull) -> bytes:
        _bounded(len(message.nodes), limits.PUSH_PULL_NODES_MAX, "nodes", LocalProtocolError)
        _bounded(len(message.user_state), limits.USER_BYTES_MAX, "user state", LocalProtocolError)
        encode = self.body.encode
        header = encode(PushPullHeader(len(message.nodes), len(message.user_state), message.join))
        return b"".join((bytes((MessageType.PUSH_PULL,)), header, *map(encode, message.nodes), message.user_state))


class StreamReader:
    """Reads one message from bytes as they arrive.

    Attributes:
        reply: after ``feed`` raised, the error message that the protocol wants
            sent back before the connection is closed; usually None.
        dropped: members of a push/pull left out because their metadata is longer than allowed.
        size: bytes that arrived.
    """

    def __init__(self, codec: StreamCodec, *, answer: bool) -> None:
        self.reply: bytes | None = None
        self.dropped = 0
        self.size = 0
        self._codec = codec
        self._answer = answer
        self._buffer = bytearray()
        self._pieces: list[bytearray] = []  # what came after it and was not looked at yet
        self._waiting = 0  # bytes of those
        self._records = 0  # members decoded so far
        self._large = False  # ``go_on`` is told to be alone
        self._message: Message | None = None
        self._done = False
        self._begun = False  # the peer has said something that wants to be ended
        self._replies = False  # an error now is answered
        self._whole = False  # the buffer is the inside of a frame: nothing comes after it
        self._steps = self._read()
        self._needed = next(self._steps)

    @property
    def wanted(self) -> int:
        """How many bytes must arrive at least before the message can be complete; 0 at the end."""
        return 0 if self._done else max(1, self._needed - len(self._buffer) - self._waiting)

    @property
    def held(self) -> int:
        """How many bytes are held, decoded members included."""
        return len(self._buffer) + self._waiting + self._records * limits.RECORD_BYTES

    @property
    def ready(self) -> bool:
        """Whether ``go_on`` comes further without more bytes."""
        return not self._done and len(self._buffer) + self._waiting >= self._needed

    def feed(self, data: bytes) -> Message | None:
        """Take more bytes; return the message once it is complete. What follows it is ignored.

        Raises:
            LabelMismatch, DecryptError, WireMismatch, RemoteProtocolError: the
                peer's bytes are refused; send ``reply``, if there is one, and close.
        """
        message = None
        if data:
            self.hold(data)
            while message is None and self.ready:
                message = self.go_on()
        return message

    def hold(self, data: bytes | memoryview) -> bool:
        """Take more bytes without looking at them; return whether ``go_on`` comes further now."""
        if self._done:
            return False
        self._begun = True
        if self._pieces and len(self._pieces[-1]) + len(data) <= _PIECE:
            self._pieces[-1] += data
        else:
            self._pieces.append(bytearray(data))
        self._waiting += len(data)
        self.size += len(data)
        return self.ready

    def go_on(self) -> Message | None:
        """Look at what is held; return the message once it is complete.

        If it returns None and ``ready`` is still true, the next step takes much memory (``limits.LARGE_BYTES``):
        the caller may see to it that there are few such steps at a time.

        Raises:
            LabelMismatch, DecryptError, WireMismatch, RemoteProtocolError: as ``feed``.
        """
        if self._pieces:
            if self._buffer or len(self._pieces) > 1:
                self._buffer = bytearray().join((self._buffer, *self._pieces))
            else:
                self._buffer = self._pieces[0]
            self._pieces, self._waiting = [], 0
        try:
            self._needed = next(self._steps)
            return None
        except StopIteration:
            self._finish()
            return self._message
        except RemoteProtocolError as error:
            self._refuse(error)
            raise

    def feed_eof(self) -> None:
        """Take the end of the stream. Says nothing if nothing was begun, or the message is complete.

        Raises:
            RemoteProtocolError: the stream was cut in the middle.
        """
        begun = self._begun and not self._done
        have = len(self._buffer) + self._waiting
        self._finish()
        if begun:
            raise RemoteProtocolError(f"the stream was closed in the middle of a message, after {have} bytes of it")

    # -- endings ------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of what is held, now: the parser and the reader refer to each other."""
        self._finish()
        self._steps.close()

    def _finish(self) -> None:
        self._done = True
        self._buffer.clear()
        self._pieces, self._waiting = [], 0

    def _refuse(self, error: RemoteProtocolError) -> None:
        """Decide on the answer to what was wrong.

        Only a failed read of the frame is answered, and a frame that is cut is
        not. Differs from memberlist: a body of the other codec is answered too,
        which the peer will find to be of the other codec in turn: one clear
        error on both sides.
        """
        self._finish()
        if self._answer or isinstance(error, IncompleteError):
            return
        if self._replies or isinstance(error, WireMismatch):
            text = str(error).removesuffix(f" ({error.hint})")
            self.reply = self._codec.seal(Err(text), answer=True)

    # -- the parser: label, frame, message ------------------------------------------------

    def _read(self) -> _Steps:
        if not self._answer:
            yield from self._read_label()
        yield from self._need(1)
        if self._answer and self._buffer[0] == MessageType.HAS_LABEL:
            raise _echo()  # only who dials sends one
        self._begun = self._replies = True
        yield from self._read_frame()
        self._replies = False
        yield from self._read_message()

    def _need(self, size: int) -> _Steps:
        while len(self._buffer) < size:
            if self._whole:
                raise IncompleteError(size)
            yield size

    def _drop(self, size: int) -> bytes:
        """Remove and return the first `size` bytes of the buffer."""
        with memoryview(self._buffer) as whole:
            data = bytes(whole[:size])
        del self._buffer[:size]
        return data

    def _alone(self, size: int) -> _Steps:
        """Before taking `size` bytes of memory: have ``go_on`` return once if they are many."""
        if size > limits.LARGE_BYTES and not self._large:
            self._large = True
            yield 0

    def _read_label(self) -> _Steps:
        yield from self._need(1)
        label = b""
        if self._buffer[0] == MessageType.HAS_LABEL:
            yield from self._need(2)
            yield from self._need(2 + self._buffer[1])
            label, _ = peel_label(self._drop(2 + self._buffer[1]))
            self._begun = bool(self._buffer)
        check_label(label, self._codec.label, skip=self._codec.skip_label_check)

    def _read_frame(self) -> _Steps:
        """Take off encryption, then compression: one level of each."""
        keys = self._codec.keyring.keys()
        if self._buffer[0] == MessageType.ENCRYPT:
            if not keys:
                raise DecryptError(
                    "remote state is encrypted and encryption is not configured",
                    hint="set the cluster's secret_key here",
                )
            yield from self._read_encrypted(keys)
        elif keys and self._codec.verify_incoming:
            raise DecryptError(
                "encryption is configured but remote state is not encrypted",
                hint="set the same secret_key there",
            )
        if self._buffer[0] == MessageType.COMPRESS:
            del self._buffer[:1]
            compressed = yield from self._read_body(Compress, limits.COMPRESSED_BUF_MAX)
            plain = yield from self._decompressed(compressed)
            self._replace(plain, "decompressed message is empty")

    def _decompressed(self, compressed: Compress) -> Generator[int, None, bytes]:
        if not self._large:
            try:
                return decompress_message(self._codec.body, compressed, limits.LARGE_BYTES)
            except RemoteProtocolError:
                yield from self._alone(limits.DECOMPRESSED_MAX)  # it is large, or broken all the same
        return decompress_message(self._codec.body, compressed, limits.DECOMPRESSED_MAX)

    def _read_encrypted(self, keys: tuple[bytes, ...]) -> _Steps:
        yield from self._need(_ENCRYPTED_HEADER_BYTES)
        header = self._drop(_ENCRYPTED_HEADER_BYTES)
        size = int.from_bytes(header[1:], "big")
        if size > limits.ENCRYPTED_FRAME_MAX:
            raise RemoteProtocolError(f"remote node state is larger than limit ({size})")
        yield from self._need(size)
        yield from self._alone(size)
        plain = decrypt_payload(keys, self._drop(size), header + self._codec.label)
        # Differs from memberlist: an empty plaintext is an error, where Go crashes.
        self._replace(plain, "decrypted message is empty")

    def _replace(self, inside: bytes, if_empty: str) -> None:
        """Go on with the inside of a frame."""
        if not inside:
            raise RemoteProtocolError(if_empty)
        self._buffer = bytearray(inside)
        self._whole = True

    def _read_message(self) -> _Steps:
        kind = self._buffer[0]
        if kind == MessageType.NUMBERED and self._codec.body.name == "cbor" and not self._answer:
            yield from self._read_numbered()
            return
        if kind not in (_ANSWERS if self._answer else _OPENING):
            if self._answer and kind in _OPENING:
                raise _echo()
            raise RemoteProtocolError(f"message type {kind} does not {'answer' if self._answer else 'open'} a stream")
        del self._buffer[:1]
        if kind == MessageType.PUSH_PULL:
            yield from self._read_push_pull()
        elif kind == MessageType.USER:
            yield from self._read_user()
        elif kind == MessageType.PING:
            self._message = yield from self._read_body(Ping)
        elif kind == MessageType.ACK_RESP:
            self._message = yield from self._read_body(AckResp)
        else:
            self._message = yield from self._read_body(Err)

    def _read_user(self) -> _Steps:
        header = yield from self._read_body(UserMsgHeader)
        size = header.user_msg_len
        _bounded(size, limits.USER_BYTES_MAX, "a user message", RemoteProtocolError)
        yield from self._need(size)
        self._message = User(self._drop(size))

    def _read_numbered(self) -> _Steps:
        del self._buffer[:1]
        header = yield from self._read_body(NumberedHeader)
        _bounded(header.user_msg_len, limits.USER_BYTES_MAX, "a user message", RemoteProtocolError)
        yield from self._need(header.user_msg_len)
        self._message = numbered(header, self._drop(header.user_msg_len))

    def _read_push_pull(self) -> _Steps:
        header = yield from self._read_body(PushPullHeader)
        _bounded(header.nodes, self._codec.nodes_max, "nodes", RemoteProtocolError)
        yield from self._alone(header.nodes * limits.RECORD_BYTES)
        nodes = yield from self._read_nodes(header.nodes)
        # Differs from memberlist: receivers there do not check the length that senders must keep. One
        # such member costs itself its place, not everybody their exchange.
        kept = tuple(node for node in nodes if len(node.meta or b"") <= META_MAX_SIZE)
        self.dropped = len(nodes) - len(kept)
        # After the nodes, as in memberlist.
        _bounded(header.user_state_len, limits.USER_BYTES_MAX, "user state", RemoteProtocolError)
        yield from self._need(header.user_state_len)
        self._message = PushPull(kept, self._drop(header.user_state_len), header.join)

    def _read_body(self, cls: type[B], limit: int = limits.STREAM_BODY_MAX) -> Generator[int, None, B]:
        """Read one body from the front of the buffer."""
        while True:
            yield from self._alone(min(limit, len(self._buffer)))
            with memoryview(self._buffer) as whole:
                window = bytes(whole[:limit])
            try:
                body, end = self._codec.body.decode(cls, window)
            except IncompleteError as error:
                if error.needed > limit:
                    raise RemoteProtocolError(f"a {cls.__name__} of more than {limit} bytes") from None
                yield from self._need(max(error.needed, len(window) + 1))
                continue
            del self._buffer[:end]
            return body

    def _read_nodes(self, count: int) -> Generator[int, None, list[PushNodeState]]:
        """Read member records, many from each window, so that the cost stays linear."""
        decode = self._codec.body.decode
        nodes: list[PushNodeState] = []
        left = limits.STATE_BYTES_MAX
        while len(nodes) < count:
            window = bytes(self._buffer[:_WINDOW])
            at = 0
            needed = 0
            try:
                while len(nodes) < count:
                    node, end = decode(PushNodeState, window, at)
                    _member_bounded(end - at)
                    at = end
                    nodes.append(node)
            except IncompleteError as error:
                _member_bounded(error.needed - at)
                needed = max(error.needed, len(window) + 1) - at
            left -= at
            if left < 0:
                raise RemoteProtocolError(f"members of more than {limits.STATE_BYTES_MAX} bytes")
            del self._buffer[:at]
            self._records = len(nodes)
            yield from self._need(needed)
        return nodes


def _echo() -> RemoteProtocolError:
    return RemoteProtocolError("what was sent came back", hint="is it a member? it may be another program, an echo")


def _member_bounded(size: int) -> None:
    if size > limits.STREAM_BODY_MAX:
        raise RemoteProtocolError(f"a member of more than {limits.STREAM_BODY_MAX} bytes")


def _bounded(size: int, most: int, what: str, error: type[LocalProtocolError | RemoteProtocolError]) -> None:
    if not 0 <= size <= most:
        raise error(f"{what}: {size} is not in 0..{most}")
