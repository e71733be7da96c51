"""Every number of an agent: its name, whether it is a counter, its unit, and what it means.

One scheme for ``metrics()``, ``Cache.stats()`` and the Prometheus text:

* ``subject.what`` in small letters, labels in braces behind it, as Prometheus
  writes them; membership's names are memberlist's where it has one.
* The exported name is that one with ``_`` for the dot, ``mycorrizal_`` in
  front, the unit behind it unless it says so itself, and ``_total`` if it
  counts. Times are in seconds there, sizes in bytes.
* Of ``dropped.notify_msg`` and its kind the last part is the label ``what``.

docs/metrics.md tells the same to people, and a test holds it to this table.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

__all__ = ["METRICS", "Metric", "metric_of"]


class Metric(NamedTuple):
    """One name. ``scale``: what a number is multiplied with for the exported unit."""

    name: str
    kind: str
    unit: str
    about: str
    exported: str
    scale: float = 1


_TABLE = """
# the agent
agent.info                       gauge     -  1; its labels are name, cluster and version
health.problems                  gauge     -  sentences that health() has at this moment
log.faults                       counter   -  log lines that a handler of yours failed to take
rundir.broken                    counter   -  files of the runtime directory that could not be read
rundir.crowded                   counter   -  looks into a runtime directory with too many files
rundir.stale                     counter   -  files of ended processes that were removed
settings_file.failures           counter   -  writes of the settings file that failed
web.requests                     counter   -  HTTP requests for metrics and health
web.refused                      counter   -  those answered with an error
web.dropped                      counter   -  connections that ran out of time, or gave way to newer ones
web.faults                       counter   -  pages that could not be made

# membership: how well it goes
health.score                     gauge     -  Lifeguard's score: 0 is well, 8 is late all the time
members                          gauge     -  members, alive and suspect, this one included
nodes                            gauge     -  nodes of all states in the table
nodes.lost                       gauge     -  members that were lost and are looked for
nodes.hearsay                    gauge     -  nodes that others told of and that are being checked
stalls                           counter   -  times this process did not run for a second or more
timers                           gauge     -  timers of the gossip thread
timers.late_ms                   gauge     ms the most that a timer was late in the last half minute
address.lost                     gauge     -  1 while the host has lost the address that was told
key.sealed                       gauge     -  packets and streams encrypted with the present key
starved.descriptors              counter   -  times no descriptor was left
starved.threads                  counter   -  times no thread was left
starved.memory                   counter   -  times no memory was left
starved.disk                     counter   -  times no room on a disk was left

# membership: failure detection
probe                            histogram s  round trips of probes that were answered directly
probes                           counter   -  probes
probes_indirect                  counter   -  probes without a direct answer in time, asked of others
probes_failed                    counter   -  probes without any answer
udp_blocked                      counter   -  members found to answer over TCP and not over UDP
suspicions_expired               counter   -  suspects declared dead
suspicions_put_off               counter   -  suspects heard before they were declared dead
accusers_corrected               counter   -  members told that their suspect is well
refutations                      counter   -  times others had taken this node for dead or suspect
refusals                         counter   -  members whose host refused a connection: their process has ended
processes_ended                  counter   -  members declared dead because the kernel of their host had told their end
indirect_pings_refused           counter   -  pings for others that were too many
pings_echoed                     counter   -  pings of ours that came back
pings_misdirected                counter   -  pings for another name
acks.pending                     gauge     -  acknowledgements that are waited for

# membership: gossip and whole states
push_pull                        histogram s  exchanges of whole states with a member that was dialled
push_pulls                       counter   -  exchanges of whole states that this node began
push_pulls_early                 counter   -  those begun since somebody joined
push_pulls_failed                counter   -  those that failed
state.local                      gauge     bytes  the last whole state that was sent
state.remote                     gauge     bytes  the last whole state that came
merges_refused                   counter   -  whole states that were refused
reconnects                       counter   -  lost members that were met again
reconnect_pings                  counter   -  pings of lost members
lost_members_forgotten           counter   -  lost members that are looked for no more
hearsay_checked                  counter   -  nodes told of by others, and asked themselves
hearsay_dropped                  counter   -  those too many to be checked
hearsay_refuted                  counter   -  those that were not there
msg.alive                        counter   -  messages that a node is alive
msg.suspect                      counter   -  messages that a node is suspect
msg.dead                         counter   -  messages that a node is dead
msg.user                         counter   -  user messages
user.misdirected                 counter   -  user messages for another node
user.replayed                    counter   -  user messages that came before
replays.windows                  gauge     -  senders of numbered messages that are remembered
moves                            counter   -  members that were followed to another address
moved                            counter   -  times this node told another address of its own
takeovers                        counter   -  names taken over by a new process
claims_outdated                  counter   -  claims to a name that were older than what is known
conflicts                        counter   -  nodes that claimed a name of another one
names_refused                    counter   -  names that no node may have
incarnation_refused              counter   -  incarnations too far ahead
answers_withheld                 counter   -  answers that one datagram asked for beyond the limit
alive.address_refused            counter   -  members outside cidrs_allowed
alive.delegate_refused           counter   -  members that a delegate refused
alive.meta_refused               counter   -  members whose metadata is too long
alive.table_full                 counter   -  members for which there was no room
alive.version_refused            counter   -  members of another protocol version

# membership: sockets
udp.sent                         counter   bytes  sent in datagrams
udp.received                     counter   bytes  received in datagrams
udp.packets_sent                 counter   -  datagrams sent
udp.packets_received             counter   -  datagrams received
udp.send_dropped                 counter   -  datagrams for which the send buffer had no room
udp.undialable_dropped           counter   -  datagrams for an address that cannot be dialled
udp.unnamed_dropped              counter   -  datagrams for a node without a name
udp.write_errors                 counter   -  datagrams that the system refused to send
udp.read_errors                  counter   -  errors of the socket while reading
packets_rejected                 counter   -  datagrams that were refused: another key, label or wire, or no sense
tcp.sent                         counter   bytes  sent in conversations
tcp.received                     counter   bytes  received in conversations
tcp.connect                      counter   -  conversations that this node dialled
tcp.accept                       counter   -  conversations that others dialled
tcp.accept_errors                counter   -  connections that the system failed to hand over
tcp.address_refused              counter   -  connections from outside cidrs_allowed
tcp.blocked                      counter   -  members found to answer over UDP and not over TCP
tcp.broken                       counter   -  conversations that broke off
tcp.crowded                      counter   -  connections that found no place
tcp.dials_dropped                counter   -  dials for which there was no thread
tcp.displaced                    counter   -  connections that said little and gave way
tcp.flooded                      counter   -  connections ended since too many bytes were held
tcp.rejected                     counter   -  conversations that were refused: another key, label or wire, or no sense
tcp.silent                       counter   -  connections that said nothing
tcp.timeouts                     counter   -  conversations that ran out of time
tcp.failing                      gauge     -  dials that failed to members that answer over UDP
tcp.held                         gauge     bytes  held for conversations
tcp.refusing                     gauge     -  1 while connections are turned away
exchanges.dialled                gauge     -  conversations under way that this node dialled
exchanges.accepted               gauge     -  conversations under way that others dialled
exchanges.threads                gauge     -  threads for conversations
exchanges.starved                counter   -  conversations for which there was no thread

# membership: queues and your callbacks
queue.broadcasts                 gauge     -  messages that wait to be gossiped
queue.commands                   gauge     -  calls that wait for the gossip thread
queue.delegates                  gauge     -  callbacks that wait for the delegate thread
queue.events                     gauge     -  events that wait for the slowest reader
subscribers                      gauge     -  readers of events
events.lost                      counter   -  events lost by slow readers
events.folded                    counter   -  events put together for a slow event delegate
delegate.slow                    counter   -  supply and admission calls over 10 ms
delegate.slow.*                  counter   -  the same, by method
delegate.faults                  counter   -  delegate methods that raised or gave too much
delegate.faults.*                counter   -  the same, by method
delegate.broadcasts_dropped      counter   -  broadcasts of a delegate that were too large
dropped.*                        counter   -  callbacks dropped since delegates were too slow, by method
futures.faults                   counter   -  callbacks of futures that raised
watchers.faults                  counter   -  watchers that raised
checks.faults                    counter   -  checks of services that raised

# the data plane
request                          histogram s  requests of this agent's callers, from the call to the answer
connections                      gauge     -  connections
peers                            gauge     -  nodes that were talked to
inbox.messages                   gauge     -  messages that wait for receive()
inbox.bytes                      gauge     bytes  those take
handlers.threads                 gauge     -  handler threads
handlers.busy                    gauge     -  handlers that run
handlers.queued                  gauge     -  requests that wait for a handler
handlers.stuck                   gauge     s  how long all handlers have been busy
bulk.bytes                       gauge     bytes  of large values under way
files.waiting                    gauge     -  received files that nobody took
files.expired                    counter   -  received files that nobody took in time
handlers.refused                 counter   -  requests for which the queue had no room
handlers.dropped                 counter   -  requests that waited at the end
handlers.starved                 counter   -  handlers for which there was no thread
handlers.faults                  counter   -  handlers that failed inside
requests.busy                    counter   -  requests refused: no handler was free
requests.raised                  counter   -  requests whose handler raised
requests.cancelled               counter   -  requests whose caller gave up
requests.*                       counter   -  requests answered without a handler, by why
streams.refused                  counter   -  streams that were too many
streams.raised                   counter   -  streams whose handler raised
values.bad                       counter   -  values that are none
values.unreadable                counter   -  values that cannot be decoded here
values.stalled                   counter   -  large values whose sender stopped
values.too_large                 counter   -  values above max_value
offences                         counter   -  peers that broke the protocol
offences.*                       counter   -  the same, by what they did
polls                            counter   -  times the loop polled instead of sleeping
polls.vain                       counter   -  times it polled for nothing
quic.accepted                    counter   -  first packets that were let in
quic.retried                     counter   -  first packets whose address had to be proved
quic.refused_full                counter   -  first packets refused: too many connections
quic.refused_rate                counter   -  first packets refused: too many at once
quic.refused_source              counter   -  first packets refused: too many from one address
quic.refused_strangers           counter   -  first packets refused: too many unproven connections
quic.backoffs                    counter   -  dials put off since the last ones failed
quic.black_holes                 counter   -  paths that lost their large datagrams
quic.errors                      counter   -  connections ended by an error of QUIC
quic.followed                    counter   -  peers followed to another address
quic.handshake_failed            counter   -  handshakes that failed
quic.icmp_refusals               counter   -  peers whose host said that nobody listens
quic.idle_closed                 counter   -  idle connections that were closed
quic.key_removed                 counter   -  connections closed with the key they were proved with
quic.name_conflicts              counter   -  connections from a second node of a name
quic.names_forgotten             counter   -  names of ended processes that are remembered no more
quic.not_a_member                counter   -  connections from nodes that are no members
quic.not_proved                  counter   -  connections whose proof was wrong: another key or cluster
quic.numbers_forgotten           counter   -  numbers of messages that are remembered no more
quic.other_process               counter   -  connections to a process that has been replaced
quic.path_retries                counter   -  tries for larger datagrams
quic.refused_connections         counter   -  connections that were too many
quic.resets_received             counter   -  connections that the peer did not know any more
quic.resets_sent                 counter   -  packets for connections that this node does not know
quic.send_drops                  counter   -  datagrams for which the send buffer had no room
quic.send_errors                 counter   -  datagrams that the system refused to send
quic.stock_path                  counter   -  1 if aioquic is used by its documented calls alone
quic.strays                      counter   -  datagrams that belong to nothing
quic.unproven_timeouts           counter   -  connections that did not prove themselves in time
host.accepted                    counter   -  connections on one host that others began
host.deaths                      counter   -  processes of this host whose end the kernel has told
host.dialled                     counter   -  connections on one host that this agent began
host.errors                      counter   -  those that broke
host.fallbacks                   counter   -  those that went by QUIC in the end
host.refused_full                counter   -  those that were too many
host.starved                     counter   -  those for which no descriptor was left
host.strangers                   counter   -  those of another user or process

# what agents share: settings, services, events
share.settings                   gauge     -  settings
share.settings.bytes             gauge     bytes  they take
share.settings.tombstones        gauge     -  deleted settings that are remembered
share.settings.old               counter   -  changes of settings that were known
share.settings.old_tombstones    counter   -  deletions too old to be believed
share.settings.refused           counter   -  settings for which there was no room
share.settings.tombstones_forgotten  counter  -  deletions that are remembered no more
share.services                   gauge     -  services
share.services.bytes             gauge     bytes  they take
share.services.orphans           gauge     -  services of nodes that are no members yet
share.services.contradicted      counter   -  services that their own node denied
share.services.old               counter   -  changes of services that were known
share.services.old_orphans       counter   -  services of ended processes
share.services.old_tombstones    counter   -  withdrawals too old to be believed
share.services.orphans_forgotten counter   -  services whose node never came
share.services.refused           counter   -  services for which there was no room
share.events.senders             gauge     -  senders of events that are remembered
share.events.remembered          gauge     -  events that are remembered
share.events.remembered_bytes    gauge     bytes  they take
share.events.held_bytes          gauge     bytes  of events that wait for an earlier one
share.events.holes               gauge     -  events that are missing and asked for
share.events.duplicate           counter   -  events that came again
share.events.late                counter   -  events that came after they were given up
share.events.missed              counter   -  events that are lost
share.events.not_held            counter   -  events for which there was no room until an earlier one came
share.events.fetches             counter   -  requests for missing events
share.events.sender_forgotten    counter   -  senders that are remembered no more
share.events.sender_refused      counter   -  senders that were too many
share.events.unvouched           counter   -  old events that nobody vouches for
share.fetches                    gauge     -  requests for missing events under way
share.fetches_answered           counter   -  requests of others for events
share.queue                      gauge     -  messages that wait to be gossiped
share.messages                   counter   -  messages of other agents
share.states                     counter   -  whole states of other agents
share.states.same                counter   -  those that told nothing new
share.states.items_refused       counter   -  items of those that were refused
share.state.left_out             counter   -  whole states that had no room beside the delegate's
share.state.missing              counter   -  whole states that came without a part
share.syncs_done                 counter   -  whole states that were asked for and came
share.syncs_failed               counter   -  requests for a whole state that failed
share.batches                    counter   -  batches of messages of other agents
share.batches.asked              counter   -  comparisons asked for since a batch was missing
share.batches.given_up           counter   -  batches that were missing and asked for in vain
share.duplicates                 counter   -  messages that came again
share.spread.batched             counter   -  messages that were told to each member in a batch
share.spread.full                counter   -  messages that found the queue full
share.spread.not_passed_on       counter   -  messages too large for gossip
share.spread.pushed              counter   -  messages sent to each member over QUIC
share.rejected                   counter   -  messages that are none
share.dropped                    counter   -  messages dropped since the gossip thread was behind
share.pushes_dropped             counter   -  messages over QUIC for which too many were under way
share.pushes_failed              counter   -  messages over QUIC that failed
share.repairs                    counter   -  whole states that were asked for over QUIC
share.values_bad                 counter   -  values that are none
share.values_unreadable          counter   -  values that cannot be decoded here
share.health_put_off             counter   -  changes of a service's health that were told later

# tasks of executors, and handlers in processes
tasks.waiting                    gauge     -  tasks that wait for a worker
tasks.under_way                  gauge     -  tasks that workers have
tasks.*                          counter   -  attempts of tasks by how they ended, and workers found silent
processes.started                counter   -  processes started for handlers
processes.died                   counter   -  those that ended by themselves

# caches
cache.operation                  histogram s  operations that the loop carried out, waits for locks left out
cache.gets                       counter   -  reads of this agent's callers
cache.hits                       counter   -  those that found the key
cache.misses                     counter   -  those that did not
cache.sets                       counter   -  writes of this agent's callers
cache.deletes                    counter   -  deletes of this agent's callers
cache.errors                     counter   -  operations that ended with an error
cache.entries                    gauge     -  entries held, copies included
cache.bytes                      gauge     bytes  held, copies included
cache.primary_entries            gauge     -  entries that this agent is primary of
cache.partitions                 gauge     -  partitions that this agent is primary of; 256 in all
cache.tombstones                 gauge     -  deletions that are remembered
cache.tombstones_dropped         counter   -  deletions forgotten before their time
cache.evicted                    counter   -  entries that went for room
cache.expired                    counter   -  entries that went at the end of their time
cache.outdated                   counter   -  writes that came after a later one
cache.served_gets                counter   -  reads answered as primary
cache.served_hits                counter   -  those that found the key
cache.served_writes              counter   -  writes answered as primary
cache.local_hits                 counter   -  reads answered on the caller's own thread
cache.bad_answers                counter   -  answers that are none
cache.bad_requests               counter   -  requests that are none
cache.busy                       counter   -  operations refused: too many were under way
cache.calls_ended                counter   -  calls to members that went
cache.claims                     counter   -  partitions that this agent became primary of
cache.claims_refused             counter   -  claims that another member refused
cache.copies_dropped             counter   -  copies that belong elsewhere now
cache.deleted_long_ago           counter   -  copies of keys that were deleted meanwhile
cache.deposed                    counter   -  times another primary was found
cache.fill_bytes                 counter   bytes  of partitions that were fetched
cache.fills                      counter   -  partitions that were fetched
cache.grants_given_back          counter   -  leases and locks that came too late for their caller
cache.leases                     counter   -  leases and locks that were given
cache.leases_dropped             counter   -  leases that gave way
cache.leases_lapsed              counter   -  leases whose holder did not come back
cache.leases_refused             counter   -  leases for which there was no room
cache.locks_lost                 counter   -  locks with renew=True that were lost
cache.locks_not_renewed          counter   -  renewals of locks that failed and are tried again
cache.near_full                  counter   -  near copies for which there was no room
cache.near_gaps                  counter   -  invalidations of near copies that were missed
cache.near_kept                  counter   -  near copies that were made
cache.near_outrun                counter   -  near copies invalidated before they came
cache.no_quorum                  counter   -  operations refused: the quorum is not here
cache.not_returned               counter   -  leases that could not be given back
cache.not_stored                 counter   -  computed values that were not stored
cache.operations_failed          counter   -  operations of callers that failed
cache.operations_refused         counter   -  operations that were too many
cache.operations_retried         counter   -  tries again of operations
cache.read_repairs               counter   -  reads that waited for a write under way
cache.reclaims                   counter   -  claims that were made again
cache.redefined                  counter   -  new definitions that were taken
cache.refreshes_dropped          counter   -  computations ahead of time that were too many
cache.refreshes_failed           counter   -  computations ahead of time that raised
cache.releases                   counter   -  partitions given to another primary
cache.replicas_refused           counter   -  copies that a member refused
cache.replication_dropped        counter   -  copies for which too many were under way
cache.replication_retries        counter   -  copies that were sent again
cache.results_refused            counter   -  remembered results that were too many
cache.retries_forgotten          counter   -  tries again whose first result is not remembered
cache.retries_recognised         counter   -  tries again that had been done
cache.surveys_refused            counter   -  surveys that were too many
cache.takeovers_forced           counter   -  partitions taken over unheard
cache.unheard_dropped            counter   -  members that are remembered as unheard no more
cache.unreadable                 counter   -  values that cannot be decoded here
cache.versions_refused           counter   -  versions too far ahead

# the control plane
control.requests                 counter   -  commands
control.errors                   counter   -  commands answered with an error
control.busy                     counter   -  commands refused: too many
control.malformed                counter   -  messages that are none
control.timeouts                 counter   -  commands that did not end in time
control.faults                   counter   -  commands that failed inside
control.replies_dropped          counter   -  replies that nobody took
control.events                   counter   -  events told
control.events_dropped           counter   -  events that a subscriber did not take
control.subscribers              counter   -  subscriptions
control.disconnects              counter   -  clients that went
control.handshakes_failed        counter   -  clients that are none
control.refused                  counter   -  connections that were too many
commands.refused                 counter   -  commands for which the queue had no room
commands.dropped                 counter   -  commands that waited at the end
commands.starved                 counter   -  commands for which there was no thread
commands.faults                  counter   -  commands that failed inside
control.open                     gauge     -  commands under way
control.threads                  gauge     -  threads for commands
"""

_UNITS = {"-": ("", 1.0), "s": ("seconds", 1.0), "ms": ("seconds", 0.001), "bytes": ("bytes", 1.0)}


def _row(line: str) -> Metric:
    name, kind, unit, about = line.split(None, 3)
    suffix, scale = _UNITS[unit]
    text = name.removesuffix("_ms").removesuffix(".*").replace(".", "_") + ("_by_what" if name.endswith(".*") else "")
    if suffix and not text.endswith(suffix):
        text = f"{text}_{suffix}"
    return Metric(name, kind, unit, about, f"{text}_total" if kind == "counter" else text, scale)


METRICS = {row.name: row for row in map(_row, filter(re.compile("[a-z]").match, _TABLE.splitlines()))}
"""By name; ``name.*`` stands for all names that begin so and are in no row of their own."""


@cache
def _known(name: str) -> tuple[Metric, str] | None:
    if name in METRICS:
        return METRICS[name], ""
    parts = name.split(".")
    for size in range(len(parts) - 1, 0, -1):
        if (row := METRICS.get(".".join([*parts[:size], "*"]))) is not None:
            return row, f'what="{".".join(parts[size:])}"'
    return None


def metric_of(name: str) -> tuple[Metric, str]:
    """Return the row of a name out of ``metrics()``, and its labels without braces.

    A name in no row, which a test keeps from being counted, is exported without a type.
    """
    bare, _, labels = name.partition("{")
    found = _known(bare)
    if found is None:
        exported = re.sub(r"\W", "_", bare, flags=re.ASCII)
        return Metric(bare, "untyped", "-", "not described", exported), labels.removesuffix("}")
    return found[0], found[1] or labels.removesuffix("}")
