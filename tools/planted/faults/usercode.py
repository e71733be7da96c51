"""Faults in what keeps the user's code from our threads, and news from being lost."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Log.log", "if not (isinstance(error, Exception) or Log.ours()):", "if True:", "a handler ends no thread"),
    Fault("Log.log", "Log.faults = next(Log._numbers)", "pass", "a record that was lost is counted"),
    Fault("own_thread", "_here.ours = True", "_here.ours = False", "a thread of ours is known as one"),
    Fault("HandlerPool._gone", "self._count -= counted", "pass", "a killed worker gives its place back"),
    Fault("HandlerPool._drain", "except BaseException as exc", "except Exception as exc", "sys.exit() ends no worker"),
    Fault("ExchangePool._work", "except BaseException as exc", "except Exception as exc", "a job's end is always told"),
    Fault("Dispatcher._run", "except BaseException as exc", "except Exception as exc", "sys.exit() ends no delegate"),
    Fault("CallbackWatch._run", "except BaseException as exc", "except Exception as exc", "a watcher hears the next"),
    Fault("Check._ask", "(isinstance(exc, Exception) or ours())", "isinstance(exc, Exception)", "a check goes on"),
    Fault("PlaneFuture.add_done_callback", "if not ours():", "if True:", "each done-callback is called"),
    Fault("_outcome", "except BaseException as exc", "except GeneratorExit as exc", "a finder's exit is an answer"),
    Fault("Mailbox.run", "except BaseException as exc:", "except Exception as exc:", "an exit is the caller's"),
    Fault("Registration.tell", "if not self.waiting:", "if False:", "a change of health is told"),
    Fault("Services._changed", "registration.waiting = False", "pass", "the next change of health is told too"),
    Fault("Services._changed", "self._sharing.later(partial(self._changed, registration), now)", "pass", "told later"),
    Fault("Sharing.serve", "            if self._tell(take):\n", "            if self._tell(take) or True:\n",
          "a push that found no room is not acknowledged"),
    Fault("Membership.operate", "if deadline.passed:", "if True:", "a goodbye waits for room"),
    Fault("heed_the_end", " or thread.daemon", "", "the end of the main thread ends no wait of a daemon"),
    Fault("heed_the_end", "(endless or ", "(", "a wait without an end ends with the main thread"),
]  # fmt: skip
