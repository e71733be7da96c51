"""Faults in the carrier between processes of one host."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Outlet._push",
        "notes.extend(map(self._sock.send, (rest,)))",
        "sent = self._sock.send(rest)\n                notes.append(sent)",
        "what is taken and the note of it are one step",
    ),
    Fault("Outlet.put", "            self._left()\n            raise", "            raise", "a Ctrl-C tells the loop"),
    Fault(
        "HostCarrier._connect", "if there != (found.pid, os.geteuid()):", "if False:", "the recorded process listens"
    ),
    Fault("HostCarrier._accepted", "if there.uid != os.geteuid():", "if False:", "another user is refused"),
    Fault("HostCarrier.ending", "if conn.dialled and failed:", "if False:", "a way that failed is avoided"),
    Fault("HostConnection._binding", "*client, *server", "*client[1:], *server[1:]", "the process numbers are bound"),
    Fault("HostConnection._hear", "hello.place != self._carrier.mark", "False", "another place is refused"),
    Fault("Link.request_now", "(self.shut or self.state == \"closed\")", "False", "a call is taken back"),
    Fault("Link.respond_now", "self.answering.append(None)", "self.answering += [None] * 2", "an answer is work once"),
    Fault("Peer.request_now", "link.calls or ", "", "amid others the loop sends"),
]
