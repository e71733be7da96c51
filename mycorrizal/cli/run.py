"""``mycorrizal agent``: an agent in the foreground. ``mycorrizal demo``: three of them, and what they see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .._agent.pulse import Pulse, Watchdog
from .._control.plain import event_fields
from .._runtime.host.notify import Notifier
from .._runtime.threads.signals import StopSignals
from ..control import ControlEvent
from ..exceptions import NotRunningError, OperationTimeout, UnknownCache
from .choose import FileName, as_json
from .keyfiles import key_from
from .made import tags_of
from .output import line, say, say_json, shown
from .values import to_json
from .watch import told

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["COMMANDS"]

LOOK_SECONDS = 0.2
"""How soon a signal is noticed."""
MESSAGES_AT_ONCE = 100
_OTHERS_SHOWN = 50


@click.command()
@click.option("--name", help="Unique in the cluster; host name and process number if not given.")
@click.option("--cluster", metavar="NAME", help="Agents of different clusters do not see each other.")
@click.option("--join", multiple=True, metavar="SEED", help="HOST, HOST:PORT, dns://NAME ...; more than once.")
@click.option("--bind", metavar="ADDRESS", help="Where to listen; loopback without a key.")
@click.option("--port", type=click.IntRange(0, 65535), help="For gossip, UDP and TCP.")
@click.option("--quic-port", type=click.IntRange(0, 65535), help="For the data plane, UDP.")
@click.option("--advertise", metavar="ADDRESS[:PORT]", help="What others should dial.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="What it says of itself; more than once.")
@click.option("--wire", type=click.Choice(["cbor", "msgpack"]), help="msgpack beside memberlist and Serf in Go.")
@click.option("--label", help="Go's label, with --wire msgpack.")
@click.option("--key-file", type=FileName(exists=True), help="The file that holds the cluster's key.")
@click.option("--prompt", is_flag=True, help="Ask for the key.")
@click.option(
    "--certificates", type=FileName(exists=True), nargs=3, metavar="CERTIFICATE KEY CA",
    help="PEM files; connections are proved with them instead of with the key.",
)  # fmt: skip
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback without a key.")
@click.option("--discover/--no-discover", default=None, help="Look for this host's agents when there are no seeds.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve metrics and health there, on loopback.")
@click.option("--seed-port", type=click.IntRange(1, 65535), help="Of seeds that name none; 7946.")
@click.option("--join-timeout", type=click.FloatRange(0), metavar="SECONDS", help="In which a seed must answer.")
@click.option("--join-retry", type=click.FloatRange(0), metavar="SECONDS", help="To go on asking, alone; or inf.")
@click.option("--expect", type=click.IntRange(0), metavar="N", help="Write and lock in no cache before N were seen.")
@click.option("--cache", "caches", multiple=True, metavar="NAME", help="Hold a part of this cache; more than once.")
@click.option("--settings-file", type=FileName(), help="Keeps the cluster's settings over a restart.")
@click.option("--config-file", type=FileName(exists=True), help="TOML, see docs/agent-settings.md.")
@click.option("--quiet", is_flag=True, help="Do not print events.")
@as_json
def agent(
    join: tuple[str, ...],
    tags: tuple[str, ...],
    caches: tuple[str, ...],
    key_file: str | None,
    prompt: bool,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run an agent until Ctrl-C, SIGTERM or `mycorrizal shutdown`, and print what happens.

    Messages that are sent to it are printed too. It leaves the cluster in
    order; a second Ctrl-C ends it at once. What is not given comes from
    MYCORRIZAL_NAME and so on, and from mycorrizal.toml.
    The key is never an argument: --key-file, --prompt, MYCORRIZAL_KEY or
    MYCORRIZAL_KEY_FILE.
    """
    from ..agent import Agent  # late: it brings aioquic, which `mycorrizal members` can do without

    given |= {"join": list(join) or None, "tags": tags_of(tags) or None, "key": key_from(key_file, prompt)}
    manager = Notifier()
    with Agent(**given) as running, StopSignals() as stop:  # before anybody can know that there is something to stop
        for name in caches:
            _hold(running, name)
        _say_hello(running, as_json)
        manager.tell("READY=1", f"STATUS={running.name} in cluster {running.cluster}")
        try:
            _follow(running, stop, quiet, as_json, manager)
        finally:
            manager.tell("STOPPING=1", "STATUS=leaves the cluster")


def _hold(running: Agent, name: str) -> None:
    """Open a cache as others have defined it, or with the settings that a cache has by default."""
    try:
        running.open_cache(name)
    except UnknownCache:
        running.cache(name)


def _say_hello(running: Agent, as_json: bool) -> None:
    """Print who it is, and on standard error what is not well with it from the beginning, as that it has no key."""
    host, port = running.address
    others = [name for name in running.members().names if name != running.name]
    start = {"name": running.name, "cluster": running.cluster, "host": host, "port": port}
    start |= {"quic_port": running.quic_port, "members": len(others) + 1, "others": others[:_OTHERS_SHOWN]}
    if as_json:
        _json_line("agent.started", start)
    else:
        line(f"{running.name} in cluster {running.cluster}, gossip {host}:{port}, QUIC {running.quic_port}")
        more = f" and {len(others) - _OTHERS_SHOWN} more" if len(others) > _OTHERS_SHOWN else ""
        line(f"here: {', '.join(others[:_OTHERS_SHOWN]) or 'nobody else yet'}{more}")
    for problem in running.health().problems:
        say(f"Warning: {shown(problem)}", err=True)


def _follow(running: Agent, stop: StopSignals, quiet: bool, as_json: bool, manager: Notifier) -> None:
    """Print events, and messages to this agent, until a signal comes or the agent ends."""
    watchdog = Watchdog(Pulse(running._running), manager.watchdog)
    with running.events() as events:
        while stop.received is None:
            try:
                if watchdog.due():
                    manager.tell("WATCHDOG=1")
                _print_messages(running, as_json)
                event = events.get(LOOK_SECONDS)
            except OperationTimeout:
                continue
            except NotRunningError:
                return
            if quiet:
                continue
            topic, value = event_fields(event)
            if as_json:
                _json_line(topic, value)
            else:
                line(told(ControlEvent(topic, value, 0, 0, "")))


def _print_messages(running: Agent, as_json: bool) -> None:
    for _ in range(MESSAGES_AT_ONCE):
        try:
            message = running.receive(0)
        except OperationTimeout:
            return
        if as_json:
            _json_line("message", {"sender": message.sender, "value": message.value})
        else:
            line(f"message from {message.sender}: {to_json(message.value, indent=None)}")


def _json_line(topic: str, value: dict[str, Any]) -> None:
    say_json({"topic": topic, "value": value}, indent=None)


@click.command()
def demo() -> None:
    """Play a cluster of three processes on this host: they meet, talk, and notice a crash."""
    from .demo import direct

    click.get_current_context().exit(direct())


COMMANDS = (agent, demo)
