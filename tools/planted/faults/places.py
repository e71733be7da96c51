"""Faults in places that are taken and given back: connections, conversations, handlers, memory, writes, leases."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    # Conversations and their threads.
    Fault(
        "ExchangePool._work",
        "                with self._changed:\n                    self._running[job.lane] -= 1\n",
        "                with self._changed:\n                    self._running[job.lane] -= error is None\n",
        "a failed conversation gives its place back",
    ),
    Fault(
        "ExchangePool._work",
        "                except BaseException as exc:",
        "                except GeneratorExit as exc:",
        "a conversation that exits gives its place back",
    ),
    Fault("ExchangePool._finish", "except BaseException:", "except Exception:", "an owner that exits ends no thread"),
    Fault("ExchangePool.close", "                queue.clear()\n", "                pass\n", "an end is told once"),
    Fault("ExchangePool.release", "self._sockets.discard(sock)", "pass", "who has ended is not woken by close"),
    # Connections.
    Fault(
        "Endpoint.forget", "        self.settled(conn)\n", "", "an unproven connection that ends gives its place back"
    ),
    Fault("Endpoint.forget", "self.connections.discard(conn)", "pass", "a connection that ends gives its place back"),
    Fault("Endpoint.forget", "self._resets.pop(conn.reset_token, None)", "pass", "its reset is forgotten"),
    Fault("Endpoint.forget", 'self._farewells.pop(conn, b"")', 'self._farewells.get(conn, b"")', "so is its goodbye"),
    Fault("Endpoint.settled", "conn.counted = False", "pass", "a place is given back once"),
    Fault("Endpoint.settled", "member=conn.knocked", "member=True", "a stranger's place is a stranger's"),
    Fault("Endpoint._accept", "conn.counted = True", "pass", "an unproven connection is counted"),
    Fault("Connection.mark_proved", "self._endpoint.settled(self)", "pass", "a proof gives the place back"),
    Fault("Endpoint._first_datagram", ">= self._config.max_connections", "> self._config.max_connections", "the limit"),
    Fault("Admission.settled", "self.strangers -= 1", "pass", "strangers give their places back"),
    Fault("Admission.decide", "self.unproven >= self._most", "self.unproven > self._most", "the limit of the unproven"),
    Fault("DataMachine.tick", "self._close_unheld(now)", "pass", "a connection ends with its certificate"),
    Fault("DataMachine._close_unheld", "if link.ready and not", "if not", "who is not proved yet is left alone"),
    # Handlers.
    Fault(
        "_Lend.__exit__",
        "                self._lent.pop()",
        "                exc_info[0] or self._lent.pop()",
        "a failed wait",
    ),
    Fault("_Lend.__enter__", "if one.depth == 1:", "if one.depth:", "a place is lent once"),
    Fault("HandlerPool._drain", "except BaseException as exc:", "except Exception as exc:", "exit ends no worker"),
    # Files.
    Fault("Arrivals.take", "            self._give_back(taker)\n", "            pass\n", "Ctrl-C loses no file"),
    Fault("Arrivals._give_back", " or self._hand(stream)", "", "a file that is given back is the next one's"),
    Fault(
        "Arrivals._give_back",
        "self._core.submit(partial(self._watch, stream))",
        "pass",
        "a file that is given back waits for a limited time",
    ),
    Fault("Arrivals._give_back", "self._takers.remove(taker)", "pass", "an interrupted receiver is forgotten"),
    Fault(
        "Arrivals.take",
        "            if taker in self._takers:\n",
        "            if False:\n",
        "so is one whose time is up",
    ),
    # Memory for large values.
    Fault("Budget.drop", "self._count(value, -value.size)", "pass", "memory is given back"),
    Fault("Budget._count", "self._held.pop(value.owner, 0)", "self._held.get(value.owner, 0)", "also of a peer's"),
    Fault("Budget._count", "self._at.pop(value.host, 0)", "self._at.get(value.host, 0)", "and of that of an address"),
    # The handlers' queue.
    Fault("Core._left_to_others", "queue // 8 if", "0 if", "nor do several names of one address fill it"),
    Fault("Budget._next", "room - self.limit // 8", "room", "several do not get all of the memory"),
    Fault("Budget._next", "self.limit // 2", "self.limit", "half of it for one peer"),
    Fault("Bulk.clear", "self.link.machine.budget.drop(value)", "pass", "a lost connection gives its memory back"),
    Fault("Bulk._value_gone", "self.link.machine.budget.drop(value)", "pass", "a value that ends does too"),
    # Calls in flight at the end.
    Fault("DataMachine.close", "peer.down(why, now, Close.SHUTDOWN)", "pass", "close ends what is under way"),
    Fault("Peer.down", "self.fail_waiting(why)", "pass", "also what waits for a connection"),
    Fault("Peer._drop", "_fail(call, why, read=True)", "pass", "and what waits for an answer"),
    Fault(
        "Peer.link_ended",
        "            self.links.remove(link)\n",
        "            pass\n",
        "links that ended are not kept",
    ),
    # Writes of caches, and who waits.
    Fault("Primary.acknowledged", "flight.waiting.pop(backup, None)", "flight.waiting.clear()", "both backups have it"),
    Fault(
        "Primary._write",
        "flight.waiting[backup] = None",
        "flight.waiting[backups[0]] = None",
        "so that both are waited for",
    ),
    Fault("Primary.owners_changed", "flight.waiting[backup] = None", "pass", "a new backup is waited for"),
    Fault("Primary.land", "        self.flights -= 1\n", "", "a write that is done gives its place back"),
    Fault("Primary.resign", "self.flights -= len(flights)", "pass", "so do those of a primary that resigns"),
    Fault("Client.closed", "self.open -= count", "pass", "an operation that ends gives its place back"),
    Fault(
        "Leases.members_changed",
        "pending.done(Result(Status.MOVED), now)  # if",
        "pass  # if",
        "a waiter wrongly taken for dead is answered",
    ),
    Fault("Leases.members_changed", "self._parked -= len(gone)", "pass", "and its place is given back"),
    Fault("Leases._wake", "self._parked -= len(queue.waiting)", "pass", "so is that of whoever is woken"),
    Fault(
        "Leases.give_back",
        "if self._drop(op.key, asked[0] if asked else op.number):",
        "if True:",
        "a lease is given back",
    ),
    Fault("Leases.give_back", "asked[0] if asked else op.number", "op.number", "also by whom asked in vain"),
    Fault("Leases.give_back", "                self._parked -= 1\n", "", "who waits no more gives its place back"),
    Fault("Client._answered", "self._give_back(attempt.op, now)", "pass", "what comes too late too"),
    Fault("Client.withdraw", "self._expire([attempt], now)", "pass", "and is asked for no more"),
    Fault("Leases.give_back", "self._wake(op.key, now)", "pass", "to who waits for it, at once"),
    Fault("Leases._drop", "        self._count -= 1\n", "", "and gives its place back"),
    Fault("Leases._void", "self._count -= len(self._tokens.pop(key))", "del self._tokens[key]", "so do void ones"),
    Fault(
        "Computation.run",
        "        except BaseException:\n            self.give_back()",
        "        except BaseException:\n            pass",
        "after an error",
    ),
    Fault("Computation.run", "except BaseException:", "except Exception:", "after Ctrl-C, too"),
    Fault("Computation.run", "if isinstance(error, ValueTooLarge):", "if False:", "or a value that is too large"),
    Fault("Cache.get_or_compute", "store.give_back()", "pass", "or where there is no thread"),
]
