"""What the parts of the machine share: settings, tables, outputs, and the two ways to send.

``Core`` holds no rule of the protocol but the packing of packets (gossip
budget and piggyback, memberlist-protocol §8.4).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from .._histogram import Histogram
from .._wire.limits import USER_BYTES_SENT_MAX
from .._wire.messages import Message, MessageType
from .._wire.packet import PacketCodec
from .._wire.text import text_of
from ..config import META_MAX_SIZE, Config, allowed, check_name
from ..delegates import AliveDelegate, Delegate, MergeDelegate, PingDelegate
from ..exceptions import ConfigError, LocalProtocolError, MetaTooLarge
from ..types import Address
from .allowance import Allowance
from .awareness import Awareness
from .broadcasts import TransmitLimitedQueue
from .events import DelegateFault, Event, ExchangeRequested, OperationDone
from .members import Member, MemberTable
from .timers import Timers

__all__ = ["Core", "ExchangeEnd"]

ExchangeEnd = Callable[[Message | None, Exception | None, float], None]
"""How an exchange reports back: (answer, error, now)."""

_T = TypeVar("_T")
_D = TypeVar("_D")

_COMPOUND_HEADER = 2  # type byte and count
_COMPOUND_ENTRY = 2  # length of each part
_PIGGYBACK_MAX = 254  # parts behind the leading message: a compound counts to 255
_PROTOCOL_MIN, _PROTOCOL_MAX = 1, 5
_PROTOCOL_MAX_CRC = 5
_CRC_BYTES = 5
_ACK_BYTES = 64  # of an acknowledgement beside its payload, at most


class Core:
    """Shared state of one machine. Owned by one thread, like all of it."""

    def __init__(
        self,
        config: Config,
        *,
        addr: bytes,
        port: int,
        codec: PacketCodec,
        rng: random.Random,
        delegate: Delegate | None,
        alive: AliveDelegate | None,
        merge: MergeDelegate | None,
        ping: PingDelegate | None,
    ) -> None:
        self.config = config
        self.name = config.name
        self.addr = addr
        self.port = port
        self.vsn = bytes(
            (
                _PROTOCOL_MIN, _PROTOCOL_MAX, config.protocol_version,
                config.delegate_protocol_min, config.delegate_protocol_max, config.delegate_protocol_version,
            )
        )  # fmt: skip
        self.codec = codec
        self.rng = rng
        self.delegate = delegate
        self._delegate_waits: Callable[[], bool] | None = getattr(delegate, "waiting", None)
        self.alive_delegate = alive
        self.merge_delegate = merge
        self.ping_delegate = ping
        self.timers = Timers()
        self.table = MemberTable(rng)
        self.queue = TransmitLimitedQueue(config.retransmit_mult, lambda: len(self.table))
        self.awareness = Awareness(config.awareness_max_multiplier)
        self.incarnation = 0
        self.has_left = False
        self.counters: dict[str, int] = {}
        self.times = {name: Histogram() for name in ("probe", "push_pull")}  # round trips of those that were answered
        self.events: deque[Event] = deque()
        self.datagrams: list[tuple[bytes, Address]] = []
        self.exchanges: list[ExchangeRequested] = []
        self.allowance: Allowance | None = None  # while a datagram is taken in, or what it left for later is done
        self._networks = config.networks
        # Differs from memberlist: numbers begin anywhere. There all begin at 1, and an acknowledgement names its ping
        # by this number alone: one that was recorded, or is our own come back, may be the one that we wait for.
        self._sequence = rng.getrandbits(32) if config.refuse_echoes else 0
        self._last_id = 0
        self._exchange_ends: dict[int, ExchangeEnd] = {}

    # -- bookkeeping ------------------------------------------------------------------

    def count(self, what: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counters[what] = self.counters.get(what, 0) + by

    def emit(self, event: Event) -> None:
        """Queue an event for the owner."""
        self.events.append(event)

    def next_sequence(self) -> int:
        """Return the next ping number (u32, wraps)."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence

    def next_incarnation(self) -> int:
        """Raise our incarnation by one and return it."""
        self.incarnation += 1
        return self.incarnation

    def new_operation(self) -> int:
        """Return an id for a call that ends with ``OperationDone``."""
        self._last_id += 1
        return self._last_id

    def finish(self, operation_id: int, result: object = None, error: Exception | None = None) -> None:
        """Report the end of an operation."""
        self.emit(OperationDone(operation_id, result, error))

    def is_self(self, member: Member) -> bool:
        """Whether the record is our own."""
        return member.name == self.name

    def address_allowed(self, host: str) -> bool:
        """Whether ``cidrs_allowed`` admits an address; text that is no address never matches."""
        return allowed(host, self._networks)

    def name_allowed(self, name: str) -> bool:
        """Whether a node may be called `name`, by the rule for one's own; a name that is refused is counted.

        Differs from memberlist: there a name is any bytes. It stands in logs, in errors, in the user's terminal. Go's
        nodes may have such names, so ``wire="msgpack"`` takes them; among ours nobody has one.
        """
        if self.config.wire == "msgpack" or self.table.get(name) is not None:
            return True
        try:
            check_name(name)
        except ConfigError:
            self.count("names_refused")
            return False
        return True

    # -- the user's supply delegates ------------------------------------------------------

    @property
    def may_speak(self) -> bool:
        """Whether the delegate may have broadcasts. One with a ``waiting`` can tell, others are asked each tick."""
        return self.delegate is not None and (self._delegate_waits is None or self._delegate_waits())

    def ask(self, call: str, method: Callable[..., _T], default: _D, *args: Any) -> _T | _D:
        """Call a supply delegate; what it raises is counted and reported, never passed on."""
        try:
            return method(*args)
        except Exception as exc:
            self.fault(call, f"raised {type(exc).__name__}: {text_of(exc)}")
            return default

    def fault(self, call: str, message: str) -> None:
        """Report a delegate's mistake; the node goes on."""
        self.count("delegate.faults")
        self.count(f"delegate.faults.{call}")
        self.emit(DelegateFault(call, message))

    def node_meta(self, old: bytes | None = None) -> bytes | None:
        """Ask for this node's metadata; if the delegate fails, `old` stays.

        Raises:
            MetaTooLarge: the delegate gave more than 512 bytes.
        """
        if self.delegate is None:
            return None
        meta = self._ask_bytes("node_meta", self.delegate.node_meta, old, META_MAX_SIZE)
        if meta is not None and len(meta) > META_MAX_SIZE:
            message = f"returned {len(meta)} bytes, the limit is {META_MAX_SIZE}"
            self.fault("node_meta", message)
            raise MetaTooLarge("node_meta", message, hint="advertise less; send the rest by other means")
        return meta

    def local_state(self, join: bool) -> bytes:
        """Ask for the user's state to push."""
        if self.delegate is None:
            return b""
        state = self._ask_bytes("local_state", self.delegate.local_state, None, join) or b""
        if len(state) > USER_BYTES_SENT_MAX:
            text = f"returned {len(state)} bytes, the limit is {USER_BYTES_SENT_MAX}; nothing was sent"
            self.fault("local_state", text)
            return b""
        return state

    def ack_payload(self) -> bytes | None:
        """Ask for bytes to put into an acknowledgement."""
        if self.ping_delegate is None:
            return None
        payload = self._ask_bytes("ack_payload", self.ping_delegate.ack_payload, None) or b""
        limit = self.config.udp_buffer_size - _ACK_BYTES - self.codec.overhead(gossip=False)
        if len(payload) > limit:
            self.fault("ack_payload", f"returned {len(payload)} bytes, the limit is {limit}; nothing was sent")
            return b""
        return payload

    def leaving(self) -> bytes:
        """Tell the delegate that we leave; return what it wants said along with the farewell, if anything."""
        leaving = getattr(self.delegate, "leaving", None)
        if leaving is None:
            return b""
        word = self._ask_bytes("leaving", leaving, None) or b""
        limit = self.config.udp_buffer_size // 2 - self.codec.overhead(gossip=True)  # half is for the leave itself
        if len(word) > limit:
            self.fault("leaving", f"returned {len(word)} bytes, the limit is {limit}; nothing was said")
            return b""
        return word

    def _ask_bytes(
        self, call: str, method: Callable[..., bytes | None], default: bytes | None, *args: Any
    ) -> bytes | None:
        def ask() -> bytes | None:
            answer = method(*args)
            return None if answer is None else bytes(memoryview(answer))  # refuses text and numbers

        return self.ask(call, ask, default)

    # -- packets ------------------------------------------------------------------------

    def queue_broadcast(self, message: Message, name: str, finished: Callable[[], None] | None = None) -> None:
        """Queue a message for gossip; it replaces a queued one of the same `name`."""
        self.queue.queue_broadcast(self.codec.encode(message), name=name, finished=finished)
        # Names come and go faster than they can be gossiped only if somebody makes them up.
        self.queue.prune(2 * self.config.max_nodes)

    def fetch(self, overhead: int, limit: int) -> list[bytes]:
        """Take broadcasts for one packet, ours first, then the user's (memberlist-protocol §8.4)."""
        parts = self.queue.get_broadcasts(overhead, limit)
        if self.delegate is None:
            return parts
        left = limit - sum(map(len, parts)) - overhead * len(parts)
        overhead += 1  # the type byte of a user message
        if left > overhead:
            parts += self._fitting(self.ask("get_broadcasts", self._offered, [], overhead, left), overhead, left)
        return parts

    def _offered(self, overhead: int, left: int) -> list[bytes]:
        assert self.delegate is not None
        return [bytes(memoryview(data)) for data in self.delegate.get_broadcasts(overhead, left) or ()]

    def _fitting(self, offered: list[bytes], overhead: int, left: int) -> list[bytes]:
        taken: list[bytes] = []
        dropped = 0
        room = left
        for data in offered:
            room -= overhead + len(data)
            if room < 0:
                room += overhead + len(data)
                dropped += 1
                continue
            taken.append(_USER_PREFIX + data)
        if dropped:
            self.count("delegate.broadcasts_dropped", dropped)
            self.fault("get_broadcasts", f"returned more than {left} bytes; {dropped} messages were dropped")
        return taken

    @contextmanager
    def answering(self, allowance: Allowance | None) -> Iterator[None]:
        """Count what is sent meanwhile against `allowance`; None is work of our own, which is not limited."""
        before, self.allowance = self.allowance, allowance
        try:
            yield
        finally:
            self.allowance = before

    def size(self, *parts: bytes) -> int:
        """Return how many bytes a datagram of encoded messages has at most."""
        compound = _COMPOUND_HEADER + _COMPOUND_ENTRY * len(parts) if len(parts) > 1 else 0
        return sum(map(len, parts)) + compound + self.codec.overhead(gossip=False) + _CRC_BYTES

    def set_aside(self, message: Message, datagrams: int = 1) -> tuple[bool, Allowance | None]:
        """Return whether `message` may be sent `datagrams` times later, and what to count it against then."""
        if self.allowance is None:
            return True, None
        kept = self.allowance.aside(self.size(self.codec.encode(message)), datagrams)
        if kept is None:
            self.count("answers_withheld")
        return kept is not None, kept

    def send(self, parts: list[bytes], address: Address, *, protocol_max: int = 0, name: str = "") -> bool:
        """Seal encoded messages into a packet for `address`; return whether it may be sent.

        Args:
            protocol_max: the destination's newest protocol, 0 if its record is not at hand.
            name: the destination's node name, where it is known.
        """
        if not self._deliverable(address, name):
            return False
        if self.allowance is not None and not self.allowance.take(self.size(*parts)):
            self.count("answers_withheld")
            return False
        for datagram in self.codec.seal(parts, crc=protocol_max >= _PROTOCOL_MAX_CRC):
            self.datagrams.append((datagram, address))
        return True

    def send_to_all(self, packets: Sequence[list[bytes]], members: Iterable[Member]) -> None:
        """Seal packets, as ``packets`` yields them, once for all of `members`. Nothing that anybody asked for."""
        sealed: dict[bool, list[bytes]] = {}
        for member in members:
            crc = member.protocol_max >= _PROTOCOL_MAX_CRC
            if self._deliverable(member.address, member.name):
                if crc not in sealed:
                    sealed[crc] = [datagram for parts in packets for datagram in self.codec.seal(parts, crc=crc)]
                self.datagrams += [(datagram, member.address) for datagram in sealed[crc]]

    def _deliverable(self, address: Address, name: str) -> bool:
        if self.config.require_node_names and not name:
            self.count("udp.unnamed_dropped")
            return False
        if not _dialable(address):
            self.count("udp.undialable_dropped")
            return False
        return True

    def send_with_piggyback(self, message: Message, address: Address, *, name: str) -> bool:
        """Send one message, with as many broadcasts behind it as fit; return whether it may be sent.

        Differs from memberlist: broadcasts go to the address of the member that has the name, and no other.
        """
        if not self._deliverable(address, name):
            return False  # before any broadcast counts as sent
        encoded = self.codec.encode(message)
        limit = self.config.udp_buffer_size - len(encoded) - _COMPOUND_HEADER - self.codec.overhead(gossip=False)
        if self.allowance is not None:
            # Half is left for what else the datagram may have us say.
            limit = min(limit, (self.allowance.room - self.size(encoded, b"")) // 2)
        known = self.table.get(name)
        parts = [encoded]
        if not self.config.limit_answers or (known is not None and known.address == address):
            parts += self.fetch(_COMPOUND_ENTRY, limit)[:_PIGGYBACK_MAX]
        # memberlist looks the destination up by its host text; that finds nodes named by their address only.
        member = self.table.get(address[0])
        return self.send(parts, address, protocol_max=member.protocol_max if member else 0, name=name)

    def send_gossip(self, member: Member) -> bool:
        """Send one member as many broadcasts as fit; return whether there were any."""
        limit = self.config.udp_buffer_size - _COMPOUND_HEADER - self.codec.overhead(gossip=True)
        parts = self.fetch(_COMPOUND_ENTRY, limit)
        if parts:
            self.send(parts, member.address, protocol_max=member.protocol_max, name=member.name)
        return bool(parts)

    def packets(self, messages: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Divide user messages into packets, each as a list of encoded messages; none is too long for one."""
        limit = self.config.udp_buffer_size - _COMPOUND_HEADER - self.codec.overhead(gossip=True)
        parts: list[bytes] = []
        room = limit
        for message in messages:
            cost = _COMPOUND_ENTRY + len(_USER_PREFIX) + len(message)
            if parts and (cost > room or len(parts) > _PIGGYBACK_MAX):
                yield parts
                parts, room = [], limit
            parts.append(_USER_PREFIX + message)
            room -= cost
        if parts:
            yield parts

    # -- exchanges ----------------------------------------------------------------------

    def request_exchange(self, message: Message, address: Address, node: str, deadline: float, end: ExchangeEnd) -> int:
        """Ask the driver for a conversation; `end` is called once with its outcome."""
        exchange_id = self.new_operation()
        self._exchange_ends[exchange_id] = end
        self.exchanges.append(ExchangeRequested(exchange_id, address, node, message, True, deadline))
        return exchange_id

    def exchange_ended(self, exchange_id: int, answer: Message | None, error: Exception | None, now: float) -> None:
        """Pass the driver's report on to who asked."""
        end = self._exchange_ends.pop(exchange_id, None)
        if end is None:
            raise LocalProtocolError(f"exchange {exchange_id} is not under way")
        end(answer, error, now)


_USER_PREFIX = bytes((MessageType.USER,))


def _dialable(address: Address) -> bool:
    host = address[0]
    return bool(host) and host[0] not in "?<" and address[1] > 0
