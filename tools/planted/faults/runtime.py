"""Faults in the runtime of membership and of what agents share."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Sharing.call", "not full.retriable or deadline.passed", "True", "a call waits for room"),
    Fault("Sharing.tell", "            self.check(now)\n", "", "who tells waits for those behind"),
    Fault(
        "Sharing.kept",
        "        except NotRunningError:\n            return self.replica.kept(keys)",
        "        except NotRunningError:\n            return {}",
        "the last settings are written",
    ),
    Fault("Sharing.serve", '            self.counters.add("share.rejected")\n', "", "unknown payloads are counted"),
    Fault("Sharing._tell", 'self.counters.add("share.dropped")', "pass", "what finds no room is counted"),
    Fault(
        "Sharing.observe", "                self._lanes.pop(node.name, None)\n", "", "who left is waited for no more"
    ),
    Fault("Sharing.observe", "self.rivals[:7]", "self.rivals", "rivals are bounded"),
    Fault("Sharing.observe", "existing.name == self._name", "True", "a rival is of this name"),
    Fault(
        "Sharing.observe", "                self.on_stall(seconds, now)\n", "                pass\n", "a stall is told"
    ),
    Fault("Sharing._push", "lane.waiting >= _LANE_MAX", "False", "pushes to one member are bounded"),
    Fault("Sharing._round_at", "replica.push_bytes >= _BATCH_BYTES", "False", "what is large does not wait"),
    Fault("Sharing._tell_all", "else _ROUND_SECONDS", "else 0.0", "what is told within a moment shares pushes"),
    Fault("Sharing.settle", "if self._round_at() is not None:", "if False:", "who leaves waits for the round"),
    Fault("Sharing._push", 'self.counters.add("share.pushes_dropped", count)', "pass", "dropped pushes are counted"),
    Fault(
        "Sharing._push",
        "            self._lost.setdefault(target, now + _REPAIR_SECONDS)\n            return",
        "            return",
        "a dropped push is repaired",
    ),
    Fault(
        "Sharing._push",
        "self._lost.setdefault(target, clock.now() + _REPAIR_SECONDS)",
        "pass",
        "a failed push is repaired",
    ),
    Fault("Sharing._push", 'self.counters.add("share.pushes_failed", count)', "pass", "failed pushes are counted"),
    Fault(
        "Sharing._push",
        "            lane.ended += count\n",
        "            lane.ended += count * (error is None)\n",
        "a failed push is over",
    ),
    Fault(
        "Sharing._repair",
        "                del self._lost[target]  #",
        "                pass  #",
        "who is gone is not repaired",
    ),
    Fault("Sharing._repair", "now - due > _REPAIR_LATEST", "False", "a repair is put off not for ever"),
    Fault(
        "Sharing._synced",
        'future.set_exception(PeerUnreachable(event.error, operation="join"))',
        "future.set_result(None)",
        "a failed exchange is an error",
    ),
    Fault("Sharing.ended", "        self.on_end()\n", "", "streams end with the thread"),
    Fault("_Lane.busy", " and now - self.moved < _LANE_SECONDS", "", "the silent hold up nobody"),
    Fault("_Lane.busy", ">= _LANE_BUSY", ">= 100 * _LANE_BUSY", "who is behind is waited for"),
    Fault(
        "_Supply.__init__", "            self.leaving = leaving\n", "            pass\n", "Serf's leave is asked for"
    ),
    Fault("Watching.publish", "if topic != STALLED:", "if True:", "stalls are no user events"),
    Fault(
        "Watching.end",
        "self._topics, self._services, self._settings",
        "self._topics, self._services",
        "every stream ends",
    ),
    Fault("Watching.begin", "        self._topics.add(stream)\n", "", "a stream is fed"),
    Fault(
        "Watching.watch_services",
        "service is None or name not in (None, service.name)",
        "service is None",
        "a watch is of a name",
    ),
    Fault(
        "Watching._open_event", "if isinstance(seconds, float) else None", "if True else None", "a stall is a number"
    ),
    Fault("merged", "(e.sender, e.number, e.value) not in known", "True", "events in both are told once"),
    Fault("merged", "[-last:]", "[:last]", "the last events are told"),
    Fault("CallbackWatch._run", 'self._counters.add("watchers.faults")', "pass", "watchers that raise are counted"),
    Fault("_Join._begin", "config.require_node_names and not entry.name", "False", "names are required where they are"),
    Fault("_Join.run", " and text not in self._reached", "", "a seed that was reached is no failure"),
    Fault(
        "_Join._error",
        "            error.__cause__ = next(iter(failures.values()))\n",
        "            pass\n",
        "the only failure is the cause",
    ),
    Fault("AgentRecord.unpack", "except RecursionError:", "except ZeroDivisionError:", "a deep record is no record"),
    Fault("_text", "len(value) <= _TEXT_MAX", "True", "a record's texts are bounded"),
    Fault(
        "Mailbox.run",
        "                    self._put_back(list(items)[index + 1 :])\n                    raise\n            elif",
        "                    raise\n            elif",
        "what was queued is refused after a crash",
    ),
    Fault("Mailbox.tell", "self._limit if bounded else None", "None", "what others tell is bounded"),
    Fault("Mailbox._put", "len(self._items) >= limit", "len(self._items) > limit", "so many commands wait"),
    Fault("ask_all", "            places.release()\n\n", "            pass\n\n", "a place is given back"),
    Fault("entries_of", "[:FOUND_MAX]", "", "what a finder finds is bounded"),
    Fault("entries_of", "isinstance(found, str) or ", "", "a text is no list of entries"),
    Fault("_foreign", 'if not callable(getattr(finder, "find", None)):', "if False:", "a finder can find"),
    Fault(
        "Claim.release",
        "                _remove(self._path, self._stem)\n",
        "                pass\n",
        "a name's files go with it",
    ),
    Fault(
        "Claim.__init__",
        "platform.lock(self._stay, shared=True)",
        "pass",
        "the directory is kept from cleaners",
    ),
    Fault("Claim.publish", "            self._check_held()\n", "", "who gave the name back publishes nothing"),
    Fault(
        "Claim.publish",
        "(record.cluster, record.name) != (self.cluster, self.name)",
        "False",
        "a record is of the claim",
    ),
    Fault("RuntimeDir._read", "if _stem(record.cluster, record.name) != stem:", "if False:", "a record is of its file"),
    Fault("RuntimeDir._look", 'self.counters.add("rundir.stale")', "pass", "stale records are counted"),
    Fault("RuntimeDir._stems", 'self.counters.add("rundir.crowded")', "pass", "crowds are counted"),
    Fault("RuntimeDir.shared_key", "platform.open_to_others(found) or ", "", "a key that others read is refused"),
    Fault("RuntimeDir.keep_key", "if len(key) != _KEY_BYTES:", "if False:", "a kept key has 32 bytes"),
    Fault("default_path", "platform.ours(os.stat(session))", "True", "another user's session is left alone"),
    Fault("Endpoint.remove", "_file(self.path) == self.file", "True", "another's socket file stays"),
    Fault("Endpoint.listen", "os.chmod(self.path, 0o600)", "pass", "a socket file is private"),
    Fault("Endpoint.parse", 'kind != "ipc"', "False", "what others could reach is refused"),
    Fault("Endpoint.parse", "len(os.fsencode(rest)) > PATH_MAX", "False", "a path finds room in an address"),
    Fault("_clear", "not stat.S_ISSOCK(mode)", "False", "a file that is no socket stays"),
    Fault("exposed", 'at = "/" if os.path.isabs(target) else at', "pass", "an absolute link begins at the root"),
    Fault("exposed", "            at = os.path.dirname(at)\n", "", "two dots go up"),
    Fault(
        "SettingsFile._run",
        "                    self._changed.update(keys)\n",
        "                    pass\n",
        "what could not be written is tried again",
    ),
    Fault("SettingsFile.load", " and math.isfinite(at)", "", "a time in the file is one"),
    Fault(
        *("_guard", "if platform.open_to_others(found, 0o022):", "if platform.open_to_others(found, 0o002):"),
        "a file that its group writes is refused",
    ),
    Fault("Inbox.offer", "len(self._items) >= self._messages or ", "", "messages that wait are bounded"),
    Fault("Inbox.close", "            self._refused = None\n", "", "no room is told after the end"),
    Fault("Inbox._has_room", "(self._messages - count) * LOT >= self._messages and ", "", "room is told in lots"),
    Fault("EventStream.put", 'self._counters.add("events.lost")', "pass", "lost events are counted"),
    Fault("EventStream._next", "self._lost and not self._told", "self._lost", "a slow reader gets events too"),
    Fault(
        "EventStream._sleep",
        "woken or bool(self._queue) or self._closed or self._ended",
        "woken",
        "a wake-up at the end of a wait counts",
    ),
    Fault("Subscribers.add", "            if self._ended:\n                stream.end()\n", "", "a late stream ends"),
    Fault(
        "Dispatcher._put_bounded",
        "self._bytes and self._bytes + size > QUEUED_BYTES_MAX",
        "False",
        "bytes that wait are bounded",
    ),
    Fault("Dispatcher.caught_up", "not self._items and not self._busy", "not self._items", "a call under way counts"),
    Fault("_Join.run", "self._delegates_pending()", "False", "a join says whether delegates are still to be told"),
    Fault("Dispatcher._put_bounded", 'self._counters.add(f"dropped.{call}")', "pass", "dropped messages are counted"),
    Fault(
        "Dispatcher._fold",
        "                self._items[waiting[-1]].args = (node,)\n",
        "                pass\n",
        "a leave has the newest record",
    ),
    Fault("Dispatcher._next", " or self._abandoned", "", "at the deadline the rest is given up"),
    Fault(
        "HandlerPool.submit", "len(jobs) >= most + self._free()", "len(jobs) > most + self._free()", "jobs are bounded"
    ),
    Fault(
        "HandlerPool.stop", 'self._counters.add(f"{self._kind}.dropped", dropped)', "pass", "dropped jobs are counted"
    ),
    Fault(
        "HandlerPool._start_or_raise",
        "                del self._threads[thread]\n",
        "                pass\n",
        "a thread that did not start is none",
    ),
    Fault("Lobby._accept", "            self._delay = 0.0\n", "", "back-off begins anew"),
    Fault("Lobby._accept", "            sock.close()\n", "            pass\n", "who is refused is closed"),
    Fault("Lobby._accept", 'self._counters.add("tcp.address_refused")', "pass", "refused addresses are counted"),
    Fault(
        "Lobby.get_timer", "self._accept_at, self._door_at, ", "self._door_at, ", "a failing listener is tried again"
    ),
    Fault("Lobby._back_off", 'self._counters.add("tcp.accept_errors")', "pass", "failed accepts are counted"),
]
