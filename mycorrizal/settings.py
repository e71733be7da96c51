"""``agent.settings``: a small dict that all agents of a cluster share.

::

    agent.settings["threshold"] = 3                 # everywhere within a second or so
    agent.settings["threshold"]                     # read here, never over the network
    agent.settings.watch("threshold", print)

The last writer wins, by hybrid logical clocks: a writer that has seen a
value is later than that value, whatever the wall clocks say. Two sides of a
partition both go on; afterwards all hold the same values. It is for settings,
not for data: the whole of it is kept by every agent and sent to each that joins.

Threads: every method may be called on any thread. Reads never block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, overload

from ._endings import named
from ._replica.outputs import Setting
from ._runtime.shared.sharing import Sharing
from ._runtime.shared.watching import CallbackWatch, Watching
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.lifecycle import Handle
from ._runtime.threads.subscribers import EventStream
from ._wire.values import Codecs, encode_value
from .config import check_function, check_text
from .events import ChangesLost, SettingChange
from .exceptions import MycorrizalError
from .types import HTML_ROWS_MAX, as_builtin, frameless, html_table, printable

__all__ = ["Settings"]

_SECONDS = 10.0

SettingStream = EventStream[SettingChange | ChangesLost]
SettingCallback = Callable[[SettingChange | ChangesLost], object]


class Settings(Handle, MutableMapping[str, Any]):
    """The cluster's settings, as this agent knows them. Made by ``Agent``."""

    def __init__(self, sharing: Sharing, watching: Watching, codecs: Codecs, node: str) -> None:
        self._sharing = sharing
        self._watching = watching
        self._codecs = codecs
        self._node = node
        # What was looked at last, and of it what could not be read: whoever counts decodes nothing twice.
        self._looked: tuple[dict[str, Setting], dict[str, MycorrizalError]] = {}, {}

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`, the caller's own copy.

        Raises:
            KeyError: it is not set here (yet).
            ValueDecodeError: it is set, and cannot be read here.
        """
        setting = self._sharing.replica.settings.get(key)
        if setting is None:
            raise KeyError(key)
        return self._read(key, setting)

    def _read(self, key: str, setting: Setting) -> Any:
        return self._watching.decode(setting.value, setting.writer, f"the setting {key!r}")

    @property
    def errors(self) -> dict[str, MycorrizalError]:
        """The settings that cannot be read here, by key, each with the error that says why. Never blocks.

        They are no items: ``dict(settings)`` and all that iterates pass them by. ``settings[key]`` raises their error.
        """
        return dict(self._split()[1])

    def _split(self) -> tuple[dict[str, Setting], dict[str, MycorrizalError]]:
        """Return all settings, and the errors of those that cannot be read, both by key.

        Only those that are others than before are read, and those that had an error.
        """
        settings, (known, before) = self._sharing.replica.settings.copy(), self._looked
        news = {key: it for key, it in settings.items() if known.get(key) is not it or key in before}
        errors: dict[str, MycorrizalError] = {}
        for key, setting in sorted(news.items()):
            try:
                self._read(key, setting)
            except MycorrizalError as error:
                errors[key] = frameless(error)
        self._looked = settings, errors
        return settings, errors

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.delete(key)

    def __iter__(self) -> Iterator[str]:
        settings, errors = self._split()
        return iter(sorted(settings.keys() - errors.keys()))

    def __len__(self) -> int:
        settings, errors = self._split()
        return len(settings) - len(errors)

    def clear(self) -> None:
        """Delete every setting, also what cannot be read here. Blocks; raises as ``delete``."""
        for key in sorted(self._sharing.replica.settings.copy()):
            self.delete(key)

    def __contains__(self, key: object) -> bool:
        return key in self._sharing.replica.settings

    @named("settings.set")
    def set(self, key: str, value: Any, timeout: float | None = _SECONDS) -> None:
        """Set `key`; when this returns it holds here, and is on its way to the others. Blocks for the gossip thread.

        Raises:
            ConfigError: `key` is no text of 1 to 255 bytes.
            ValueEncodeError, ValueTooLarge: `value` cannot be sent, or takes more than 64 KiB.
            QueueFull: there are too many settings.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        key = check_text("key", key, "threshold")
        encoded = encode_value(value, self._codecs).pack()
        replica = self._sharing.replica
        self._sharing.tell(lambda now: replica.set_setting(key, encoded, now), Deadline(timeout), "settings.set")

    @named("settings.delete")
    def delete(self, key: str, timeout: float | None = _SECONDS) -> None:
        """Delete `key`, whether or not it is set here; it stays deleted until somebody sets it again. Blocks likewise.

        Raises: as ``set``.
        """
        key = check_text("key", key, "threshold")
        replica = self._sharing.replica
        self._sharing.tell(lambda now: replica.set_setting(key, None, now), Deadline(timeout), "settings.delete")

    def writer(self, key: str) -> str:
        """Return the name of the agent that set `key` last.

        Raises:
            KeyError: it is not set.
        """
        return self._sharing.replica.settings[key].writer

    @overload
    def watch(self, key: str | None = None) -> SettingStream: ...

    @overload
    def watch(
        self, key: str | None, callback: SettingCallback
    ) -> CallbackWatch[SettingChange | ChangesLost]: ...

    def watch(
        self, key: str | None = None, callback: SettingCallback | None = None
    ) -> SettingStream | CallbackWatch[SettingChange | ChangesLost]:
        """Hear of changes of `key`, of all keys if None, also of one's own.

        Returns:
            Without `callback` a stream to iterate or ``get`` from. With it, something to ``close()``: `callback` is
            called with each change, in order, on a thread of its own.
        """
        if callback is not None:
            check_function("callback", callback)
        stream = self._watching.watch_settings(as_builtin(key))
        return stream if callback is None else self._watching.call(callback, stream)

    def __repr__(self) -> str:
        return f"<Settings of {printable(self._node)}: {len(self)}>"

    def _repr_html_(self) -> str:
        found = sorted(self._sharing.replica.settings.copy().items())
        rows = [(key, self._shown(key), setting.writer) for key, setting in found[:HTML_ROWS_MAX]]
        return html_table(("setting", "value", "set by"), rows, len(found))

    def _shown(self, key: str) -> str:
        try:
            return repr(self.get(key))
        except MycorrizalError:
            return "(cannot be read)"
