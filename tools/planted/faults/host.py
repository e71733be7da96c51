"""Faults in the carrier between processes of one host."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Outlet._push",
        "notes.extend(map(self._sock.sendmsg, (rest,)))",
        "sent = self._sock.sendmsg(rest)\n                    notes.append(sent)",
        "what is taken and the note of it are one step",
    ),
    Fault("Outlet.put", "            self._left()\n            raise", "            raise", "a Ctrl-C tells the loop"),
    Fault(
        "HostCarrier._connect", "if there != (found.pid, user()):", "if False:", "the recorded process listens"
    ),
    Fault("HostCarrier._accepted", "if there.uid != user():", "if False:", "another user is refused"),
    Fault("HostCarrier.ending", "if conn.dialled and failed:", "if False:", "a way that failed is avoided"),
    Fault("HostConnection._binding", "*client, *server", "*client[1:], *server[1:]", "the process numbers are bound"),
    Fault("HostConnection._hear", "hello.place != self._carrier.mark", "False", "another place is refused"),
    Fault("Link.request_now", "(self.shut or self.state == \"closed\")", "False", "a call is taken back"),
    Fault("Link.respond_now", "self.answering.append(None)", "self.answering += [None] * 2", "an answer is work once"),
    Fault("Peer.request_now", "link.calls or ", "", "amid others the loop sends"),
    Fault("Loan.read", "self._chunks.extend(map(self._sock.recv, (_SIZE,)))",
          "got = self._sock.recv(_SIZE)\n                self._chunks.append(got)", "what is read and the note of it"),
    Fault("Loan.read", "self._over or who.done", "self._over", "what the loop has just read is not waited for"),
    Fault("Loan.read", "self._over or who.done", "who.done", "nobody waits on a connection that has ended"),
    Fault("Loan.stop", "if self.taken:", "if False:", "the end wakes who waits at the socket"),
    Fault("Loan.end", "if self._reader.get(None) is who:", "if True:", "only who reads ends that"),
    Fault("HostConnection.read", "self._reader.between and not", "not", "nobody takes the middle of a piece"),
    Fault("Link._alone", "or not self._reader.between", "", "nobody takes the middle of a frame"),
    Fault("Link.answer_now", "is not call:", "is None:", "an answer that was taken is not taken again"),
    Fault("Link.serve_now", "self.refusal(number, name, depth) is not None", "False", "a handler's thread refuses too"),
    Fault("Outflow.push", "last = looked and self.fin", "last = self.fin", "the end comes after a last look"),
    Fault("Bulk.room", "value.room()", "value.reader.room()", "no more is read than was granted"),
    Fault("Deaths.ended", "self._rundir.vacant(self._cluster, name)", "True", "who keeps its lock is not accused"),
    Fault("RuntimeDir.vacant", "os.close(lock)\n        return True", "return True", "a look lets go of the lock"),
    Fault("Transitions.ended", "read_meta(member.meta or b\"\").boot == boot", "True", "another life is not meant"),
    Fault("HostCarrier.ending", 'kind == "gone" and', "", "a goodbye is no death"),
]
