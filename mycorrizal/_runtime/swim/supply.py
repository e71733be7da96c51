"""The user's supply and admission delegates as the machine sees them: timed, and harmless.

They run inline on the gossip thread, where every millisecond delays acks. A
call over ``SLOW`` is logged with its name and counted. An exception of a supply
call becomes a counted fault and a default; of an admission call it is the
refusal, and passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..._wire.text import logger, text_of
from ...delegates import AliveDelegate, BaseDelegate, BasePingDelegate, Delegate, MergeDelegate, PingDelegate
from ...types import Node
from ..threads import clock
from ..threads.counters import Counters, QuietLog

__all__ = ["SLOW", "AliveGate", "MergeGate", "PingSupply", "Supply", "Timed"]

log = logger("mycorrizal.delegates")

SLOW = 0.010
"""Seconds; a supply or admission call that takes longer is named and counted."""

T = TypeVar("T")


class Timed:
    """Runs and times callbacks. Gossip thread."""

    def __init__(self, node: str, counters: Counters) -> None:
        self._counters = counters
        self._quiet = QuietLog(log, node)

    def call(self, name: str, callback: Callable[[], T]) -> T:
        """Return ``callback()``; an exception passes through.

        ``SystemExit`` and the like come out as a ``RuntimeError``: a delegate
        that calls ``sys.exit()`` must not end the gossip thread.
        """
        started = clock.now()
        try:
            return callback()
        except Exception:
            raise
        except BaseException as exc:
            raise RuntimeError(f"{name} raised {type(exc).__name__}: {text_of(exc)}") from exc
        finally:
            took = clock.now() - started
            if took > SLOW:
                self._counters.add("delegate.slow")
                self._counters.add(f"delegate.slow.{name}")
                self._quiet.warning(
                    f"slow {name}",
                    "delegate method %s took %.0f ms; the gossip thread waits for it, keep it under %.0f ms",
                    name,
                    took * 1e3,
                    SLOW * 1e3,
                )

    def supply(self, name: str, callback: Callable[[], T], default: T) -> T:
        """Return ``callback()``, or `default` when it raises."""
        try:
            return self.call(name, callback)
        except Exception as exc:
            self.fault(name, exc)
            return default

    def fault(self, name: str, exc: Exception | str) -> None:
        """Count and log that `name` went wrong."""
        self._counters.add("delegate.faults")
        self._counters.add(f"delegate.faults.{name}")
        why = exc if isinstance(exc, str) else f"{type(exc).__name__}: {text_of(exc)}"
        self._quiet.warning(f"fault {name}", "delegate method %s: %s", name, why)


def _bytes(value: object, name: str) -> bytes:
    """Return `value` as bytes of its own: the caller may go on writing to a bytearray."""
    if value is None:
        return b""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{name} must return bytes, not {type(value).__name__}")


class Supply(BaseDelegate):
    """``node_meta``, ``get_broadcasts`` and ``local_state`` of a ``Delegate``, who may lack any; it observes nothing.

    Also ``leaving``, which the machine calls, if it is there, before it announces that we leave.
    """

    def __init__(self, delegate: Delegate, timed: Timed) -> None:
        self._delegate = delegate
        self._timed = timed
        self._meta = b""
        leaving: Callable[[], bytes | None] | None = getattr(delegate, "leaving", None)
        if leaving is not None:
            self.leaving = lambda: timed.supply("leaving", lambda: _bytes(leaving(), "leaving"), b"")

    def node_meta(self, limit: int) -> bytes:
        """Return the node's metadata; when the delegate raises, what it gave last."""
        ask = getattr(self._delegate, "node_meta", None)
        if ask is None:
            return b""
        meta = self._timed.supply("node_meta", lambda: _bytes(ask(limit), "node_meta"), self._meta)
        if len(meta) <= limit:
            self._meta = meta
        return meta

    def get_broadcasts(self, overhead: int, limit: int) -> Sequence[bytes]:
        """Return the user's broadcasts, or none when the delegate raises."""
        ask = getattr(self._delegate, "get_broadcasts", None)
        if ask is None:
            return ()

        def collect() -> Sequence[bytes]:
            given: Iterable[bytes] | None = ask(overhead, limit)
            return [_bytes(one, "get_broadcasts") for one in given] if given else ()

        return self._timed.supply("get_broadcasts", collect, ())

    def local_state(self, join: bool) -> bytes:
        """Return the user's state, or none when the delegate raises."""
        ask = getattr(self._delegate, "local_state", None)
        if ask is None:
            return b""
        return self._timed.supply("local_state", lambda: _bytes(ask(join), "local_state"), b"")


class PingSupply(BasePingDelegate):
    """``ack_payload`` of a ``PingDelegate``."""

    def __init__(self, delegate: PingDelegate, timed: Timed) -> None:
        self._delegate = delegate
        self._timed = timed

    def ack_payload(self) -> bytes:
        """Return the payload of an acknowledgement, or none when the delegate raises."""
        ask = getattr(self._delegate, "ack_payload", None)
        if ask is None:
            return b""
        return self._timed.supply("ack_payload", lambda: _bytes(ask(), "ack_payload"), b"")


class AliveGate:
    """``notify_alive``: an exception refuses the message."""

    def __init__(self, delegate: AliveDelegate, timed: Timed) -> None:
        self._delegate = delegate
        self._timed = timed

    def notify_alive(self, node: Node) -> None:
        """Ask the delegate; its exception passes through."""
        ask = self._delegate.notify_alive
        self._timed.call("notify_alive", lambda: ask(node))


class MergeGate:
    """``notify_merge``: an exception refuses the merge."""

    def __init__(self, delegate: MergeDelegate, timed: Timed) -> None:
        self._delegate = delegate
        self._timed = timed

    def notify_merge(self, peers: Sequence[Node]) -> None:
        """Ask the delegate; its exception passes through."""
        ask = self._delegate.notify_merge
        self._timed.call("notify_merge", lambda: ask(peers))
