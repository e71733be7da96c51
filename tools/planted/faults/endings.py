"""Faults in how calls end, and in when a connection is dialled again."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "TABLE",
        "Ending.CLOSED: Row(NotRunningError, False, False, True, True)",
        "Ending.CLOSED: Row(NotRunningError, False, False, False, True)",
        "a request that our close cut off may have run",
    ),
    Fault(
        "TABLE",
        "Ending.TIMEOUT: Row(OperationTimeout, True, False,",
        "Ending.TIMEOUT: Row(OperationTimeout, True, True,",
        "what was never sent had no effect",
    ),
    Fault("for_call", "    mine = copied(made)\n", "    mine = made\n", "calls that end together have an error each"),
    Fault("for_call", "made.node or node", "made.node", "the error of a call names the peer"),
    Fault("_doubt", "row.sent if sent else row.waiting", "row.waiting", "what was sent may have run"),
    Fault("copied", "    mine.__cause__ = made.__cause__\n", "", "a crash keeps its cause"),
    Fault("_fail", "read and whole", "read", "a large request that was cut off has no effect"),
    Fault("_fail", "read and whole", "False", "a request whose connection is lost may have run"),
    Fault(
        "Peer.fail_waiting", "message.sequence > 0", "False", "a message that was sent may have arrived when all ends"
    ),
    Fault("LocalPeer.fail_waiting", "for_call(why, True,", "for_call(why, False,", "also a request to oneself has run"),
    Fault("Peer._expire", "sent=sent", "sent=False", "a request that times out may have run"),
    Fault("Peer._drop", "sink.broken(for_call(why, True,", "sink.broken(for_call(why, False,", "a stream had begun"),
    Fault("PlaneFuture.cancel", "self._why = on_cancel()", "on_cancel()", "a cancelled call says how far it had come"),
    Fault("_send", "for_call(exc, ended,", "for_call(exc, True,", "a part of a file has no effect"),
    Fault("Gossip._ended", "refusal(sent=True)", "refusal()", "what gossip had begun may have its effect"),
    Fault(
        "Peer._lost",
        "            self._back_off(self.machine.config.redial_max, now)\n            return\n",
        "            return\n",
        "a connection on which nothing was done is dialled again after a pause",
    ),
    Fault("Peer._lost", "not link.worked and ", "", "a good connection is dialled again at once"),
    Fault(
        "Peer._lost",
        "            self._pause(self.machine.config.redial_max, now)\n",
        "            pass\n",
        "connections that do a little work each keep apart",
    ),
    Fault("Link.answered", "            self.worked = True\n", "", "an answered call is work"),
    Fault("Peer.accepted", "        link.worked = link.worked or news\n", "", "an accepted message is work"),
    Fault("Bulk.granted", "news = self.link.worked = True", "news = True", "a stream that is taken is work"),
    Fault("Peer._pause", '        host.count("quic.backoffs")\n', "", "pauses are counted"),
    Fault("Peer.link_ended", "code != Close.IDLE and ", "", "an idle close is no failure"),
    Fault(
        "Peer.link_ended",
        "(link.conn.dialled or calls or sinks)",
        "True",
        "a peer that came, asked and went is called without a pause",
    ),
    Fault(
        "Membership.wait",
        'for_call(late, getattr(future, "begun", True)',
        "for_call(late, True",
        "what was given up before it began has no effect",
    ),
    Fault(
        "Membership.wait", "made.indeterminate, operation=", "False, operation=", "what gossip had begun may have run"
    ),
    Fault(
        "Membership.wait", "            done, late = False, over\n", "            done = False\n", "our exit is a close"
    ),
    Fault("Posted.begun", "not self.cancelled()", "False", "a command that runs may have its effect"),
    Fault(
        "Gossip.operation",
        "            result.begun = True  # first this, then a look; who gives up does it the other way round\n",
        "",
        "an operation that the machine has begun with may have its effect",
    ),
    Fault("named", "if made.operation is None or ", "if True or ", "the call within keeps its name"),
    Fault("named", " or made.operation in within", "", "an alias names itself"),
    Fault(
        "EventStream._over", "        error.operation = self._operation\n", "", "a stream's end says what was called"
    ),
    Fault("Keys._change", 'operation=f"keys.{operation}")', "operation=None)", "the change's errors are its own"),
    Fault("ForkGuard.check", "operation=operation", "operation=None", "in a forked child too an error names the call"),
    Fault("Agent.open_cache", 'parts.data._blocking("open_cache")', "pass", "what is closed does not say: unknown"),
    Fault("cancel_call", "_ended(over, call.sent,", "_ended(over, False,", "our exit too leaves open whether it ran"),
    Fault("withdraw", "message.sequence > 0, node", "False, node", "our exit too leaves open whether it arrived"),
]
