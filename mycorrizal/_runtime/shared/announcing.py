"""Telling every agent something, and knowing that it has heard: a few directly, many through one of them.

If each of N told each, each pair would need a connection, N² handshakes in all
when all open a cache at once. So where there are many, the first by name tells
the others for all; what comes while it waits for an answer of one goes to that
one in the next message, together. Gossip carries the same, so what is missed
here is late, not lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..._wire.values import decode_packed, encode_value
from ...exceptions import MycorrizalError, OperationTimeout

if TYPE_CHECKING:
    from ..data.carrier import Done

__all__ = ["ANNOUNCE", "SECONDS", "SPREAD", "Announcing", "unpacked"]

ANNOUNCE, SPREAD = b"\2", b"\3"
"""What payloads begin with: messages for the one who gets them, a message for everybody."""

SECONDS = 2.0
"""Nobody who does not answer is waited for any longer."""

_FEW = 4  # so many are told directly
_WAITING_MAX = 1024  # messages for one agent

Heard = Callable[[list[str]], None]


class Ask(Protocol):
    """Sends a payload to an agent; any thread. See ``Carrier.ask``."""

    def __call__(self, node: str, payload: bytes, timeout: float, done: Done) -> None: ...


def unpacked(payload: bytes, kind: type) -> list[Any]:
    """Return a list of `kind` out of a payload; an empty one out of anything else."""
    try:
        found = decode_packed(payload)
    except MycorrizalError:
        return []
    return found if type(found) is list and all(type(it) is kind for it in found) else []


class _News:
    """A message on its way."""

    __slots__ = ("done", "heard", "left", "raw")

    def __init__(self, raw: bytes, left: list[str], done: Heard) -> None:
        self.raw = raw
        self.left = dict.fromkeys(left)
        self.heard: list[str] = []
        self.done = done


class Announcing:
    """One agent's side of it. Gossip thread.

    Args:
        name: the agent's.
        others: returns the names of the other agents.
        suspects: returns the names of members that may be gone: nobody waits for them, and none tells the others.
        ask: sends a payload.
        note: runs a command on the gossip thread, soon.
    """

    def __init__(
        self, name: str, others: Callable[[], list[str]], suspects: Callable[[], set[str]], ask: Ask,
        note: Callable[[Callable[[float], object]], None],
    ) -> None:  # fmt: skip
        self._name = name
        self._others = others
        self._suspects = suspects
        self._ask = ask
        self._note = note
        self._waiting: dict[str, list[_News]] = {}  # by agent, not sent yet
        self._sent: dict[str, list[_News]] = {}  # by agent, on the way

    def tell(self, raw: bytes, done: Heard) -> None:
        """Tell all others `raw`; `done` gets the names of those that have heard it, as soon as no more are expected."""
        others = self._others()
        first = min(set(others) - self._suspects(), default=self._name)
        if len(others) <= _FEW or self._name <= first:
            self._tell_each(raw, others, done)
            return

        def spread(answer: bytes | None, error: MycorrizalError | None) -> None:
            heard = [] if answer is None else [first, *unpacked(answer, str)]
            late = isinstance(error, OperationTimeout)  # nobody waits for this any more, and more work makes it later
            self._note(lambda now: done([]) if late else self._tell_rest(raw, heard, done))

        self._ask(first, SPREAD + raw, SECONDS, spread)

    def pass_on(self, sender: str, raw: bytes, answer: Callable[[bytes], None]) -> None:
        """Tell all but `sender`, who asked for it, and answer with the names of those that have heard."""
        others = [name for name in self._others() if name != sender]
        self._tell_each(raw, others, lambda heard: answer(encode_value(heard).pack()))

    def _tell_rest(self, raw: bytes, heard: list[str], done: Heard) -> None:
        """Tell who was not told by the first: a few, since all may be late because all are busy."""
        known = frozenset(heard)
        rest = [name for name in self._others() if name not in known][:_FEW]
        self._tell_each(raw, rest, lambda more: done([*heard, *more]))

    def _tell_each(self, raw: bytes, names: list[str], done: Heard) -> None:
        suspects = self._suspects()
        news = _News(raw, [name for name in names if name not in suspects], done)
        if not news.left:
            done([])
        for name in names:
            waiting = self._waiting.setdefault(name, [])
            if len(waiting) < _WAITING_MAX:
                waiting.append(news)
            else:
                self._end(news, name, False)
            self._send(name)

    def _send(self, name: str) -> None:
        """Send what waits for an agent, if nothing is on the way to it."""
        if name in self._sent or name not in self._waiting:
            return
        self._sent[name] = sent = self._waiting.pop(name)

        def done(answer: bytes | None, error: MycorrizalError | None) -> None:
            self._note(lambda now: self._arrived(name, answer is not None))

        self._ask(name, ANNOUNCE + encode_value([news.raw for news in sent]).pack(), SECONDS, done)

    def _arrived(self, name: str, heard: bool) -> None:
        """What was sent to an agent was answered; if it was not, what waits for it waits no longer."""
        ended = self._sent.pop(name)
        if not heard:
            ended = [*ended, *self._waiting.pop(name, ())]
        for news in ended:
            self._end(news, name, heard)
        self._send(name)

    def _end(self, news: _News, name: str, heard: bool) -> None:
        if name not in news.left:
            return  # a suspect, for which nobody waits
        del news.left[name]
        if heard:
            news.heard.append(name)
        if not news.left:
            news.done(news.heard)
