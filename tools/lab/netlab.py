"""Hosts on one machine: network namespaces joined by a switch that loses, repeats, delays and reorders frames.

Needs root and iproute2, Linux only. The switch is a process of ours that moves
real frames between the namespaces' interfaces, so it works on kernels that
have no ``tc netem``, and its dice are seeded. ARP passes unharmed; everything
else (UDP and TCP alike) is at its mercy::

    with Lab(hosts=8, loss=0.3, duplicate=0.05, reorder=0.25) as lab:
        child = lab.popen(3, [sys.executable, "node.py", lab.address(3)])
        lab.faults(loss=0.0)
        lab.partition([0, 1, 2], [3, 4, 5, 6, 7])
        lab.stats()
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from typing import Any

__all__ = ["Lab", "missing"]

_ARP = b"\x08\x06"
_IPV4 = b"\x08\x00"
_SIOCETHTOOL = 0x8946
_OFFLOADS_OFF = (0x15, 0x17, 0x1F, 0x24, 0x2C)  # rx and tx checksums, TSO, GSO, GRO: what leaves must be whole frames
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_QUEUE_MAX = 10_000


def missing() -> str | None:
    """Return what keeps a ``Lab`` from working here, if anything."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is missing: run tools/peers"
    return None


class Lab:
    """A context manager: `hosts` namespaces, numbered from 0, and the switch between them."""

    def __init__(self, hosts: int, *, seed: int = 0, **faults: float) -> None:
        self.hosts = hosts
        self._id = f"{os.getpid() % 10000:x}"
        self._faults = faults
        self._seed = seed
        self._switch: subprocess.Popen[str] | None = None
        self._children: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Lab:
        try:
            for host in range(self.hosts):
                self._add(host)
            self._switch = subprocess.Popen(
                [sys.executable, __file__, str(self._seed), *(self._outside(h) for h in range(self.hosts))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self.faults(**self._faults)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def address(self, host: int) -> str:
        """Return the IPv4 address of a host."""
        return f"10.77.0.{host + 1}"

    def move(self, host: int, address: str, *, gap: bool = False) -> None:
        """Give a host another IPv4 address, as DHCP does; with a `gap` it has none at all for a moment."""
        inside, name = f"lab{self._id}i{host}", self._name(host)
        found = subprocess.run(
            ["ip", "-n", name, "-4", "-o", "addr", "show", "dev", inside], check=True, capture_output=True, text=True
        ).stdout.split()
        steps = [f"addr add {address}/24 dev {inside}", f"addr del {found[3]} dev {inside}"]
        for step in reversed(steps) if gap else steps:
            # The new one is secondary beside the old one, and goes with that unless it is promoted.
            subprocess.run(
                ["ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv4.conf.{inside}.promote_secondaries=1"],
                check=True,
            )
            subprocess.run(["ip", "-n", name, *step.split()], check=True)

    def nat(self, host: int, private: str, public: str) -> None:
        """Put a host behind a translation of addresses, one to one, as clouds do: it has only the `private` one.

        The switch translates. The others know by fixed entries at whose interface `public` is, and it theirs.
        """
        for other in range(self.hosts):
            inside, name = f"lab{self._id}i{other}", self._name(other)
            if other == host:
                steps = [f"addr flush dev {inside}", f"addr add {private}/32 dev {inside}"]
                steps += [f"route replace {self.address(0)}/24 dev {inside}".replace(".1/24", ".0/24")]
                known = [(self.address(peer), peer) for peer in range(self.hosts) if peer != host]
            else:
                steps, known = [], [(public, host)]
            steps += [f"neigh replace {ip} lladdr 02:00:00:00:00:{peer:02x} dev {inside}" for ip, peer in known]
            for step in steps:
                subprocess.run(["ip", "-n", name, *step.split()], check=True)
        self._tell({"nat": {str(host): [private, public]}})

    def detour(self, host: int, address: str) -> None:
        """Give a host a second interface, with another address, that leads nowhere and has the default route."""
        name, one, other = self._name(host), f"lab{self._id}x{host}", f"lab{self._id}y{host}"
        gateway = address.rpartition(".")[0] + ".254"
        for step in (
            f"link add {one} type veth peer name {other}", f"addr add {address}/24 dev {one}", f"link set {one} up",
            f"link set {other} up", f"route add default via {gateway}",
        ):  # fmt: skip
            subprocess.run(["ip", "-n", name, *step.split()], check=True)

    def popen(self, host: int, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process on a host; it is killed when the lab closes."""
        child = subprocess.Popen(["ip", "netns", "exec", self._name(host), *command], **options)
        self._children.append(child)
        return child

    def faults(self, **faults: float) -> None:
        """Set ``loss``, ``duplicate``, ``reorder`` (shares of frames) and ``delay``, ``jitter`` (seconds)."""
        self._tell({"faults": faults})

    def partition(self, *groups: list[int]) -> None:
        """Let frames pass within each group only; no group at all: everywhere."""
        self._tell({"partition": groups})

    def stats(self) -> dict[str, int]:
        """Return how many frames were forwarded, lost, repeated, held back and cut so far."""
        answer = self._tell({"stats": True})
        return {key: int(value) for key, value in answer.items()}

    def close(self) -> None:
        """Kill the children and the switch, remove the namespaces."""
        for child in self._children:
            child.kill()
        for child in self._children:
            for pipe in filter(None, (child.stdin, child.stdout, child.stderr)):
                pipe.close()
            child.wait()
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()
        for host in range(self.hosts):
            # Without the outside end the inside one goes too, at once and not when the kernel comes to it.
            subprocess.run(["ip", "link", "del", self._outside(host)], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", self._name(host)], check=False, capture_output=True)

    @property
    def prefix(self) -> str:
        """What the names of its namespaces begin with."""
        return f"lab{self._id}-"

    def _name(self, host: int) -> str:
        return f"{self.prefix}{host}"

    def _outside(self, host: int) -> str:
        return f"lab{self._id}o{host}"

    def _add(self, host: int) -> None:
        name, outside, inside = self._name(host), self._outside(host), f"lab{self._id}i{host}"
        mac = f"02:00:00:00:00:{host:02x}"
        for command in (
            f"ip netns add {name}",
            f"ip link add {outside} type veth peer name {inside} address {mac}",
            f"sysctl -qw net.ipv6.conf.{outside}.disable_ipv6=1",
            f"ip link set {inside} netns {name}",
            f"ip link set {outside} up",
            f"ip -n {name} link set lo up",
            f"ip -n {name} addr add {self.address(host)}/24 dev {inside}",
            f"ip -n {name} link set {inside} up",
        ):
            done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
            if done.returncode and not command.startswith("sysctl"):
                raise RuntimeError(f"{command}: {done.stderr.strip()}")
            if command.startswith("ip link add"):
                no_offload(inside)  # here, where it is still in sight; it keeps that when it moves

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._switch is not None and self._switch.stdin is not None and self._switch.stdout is not None
        self._switch.stdin.write(json.dumps(order) + "\n")
        self._switch.stdin.flush()
        line = self._switch.stdout.readline()
        if not line:
            raise RuntimeError("the switch has died")
        answer: dict[str, Any] = json.loads(line)
        return answer


def no_offload(interface: str) -> None:
    """Make the kernel finish checksums and cut segments before a frame leaves `interface`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in _OFFLOADS_OFF:
            value = bytearray(struct.pack("II", command, 0))
            request = bytearray(struct.pack("16sP16x", interface.encode(), _address_of(value)))
            try:
                fcntl.ioctl(sock, _SIOCETHTOOL, request)
            except OSError:
                pass  # not every kernel has every switch


def translated(frame: bytes, place: int, before: bytes, after: bytes) -> bytes:
    """Return an IPv4 frame with the address at `place` changed, and the checksums that hold it (RFC 1624)."""
    if frame[place : place + 4] != before:
        return frame
    changed = bytearray(frame)
    changed[place : place + 4] = after
    end = 14 + (frame[14] & 15) * 4
    sums = [24]
    if not int.from_bytes(frame[20:22], "big") & 0x1FFF:  # the first fragment has the other header
        sums += {6: [end + 16], 17: [end + 6]}.get(frame[23], [])
    for where in sums:
        old = int.from_bytes(frame[where : where + 2], "big")
        if old or where == 24 or frame[23] == 6:  # a datagram may have none
            new = ~old & 0xFFFF
            for gone, come in zip(struct.unpack("!2H", before), struct.unpack("!2H", after), strict=True):
                new += (~gone & 0xFFFF) + come
            while new >> 16:
                new = (new & 0xFFFF) + (new >> 16)
            changed[where : where + 2] = (~new & 0xFFFF).to_bytes(2, "big")
    return bytes(changed)


def _address_of(buffer: bytearray) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Switch:
    """Moves frames between interfaces; runs in a process of its own."""

    def __init__(self, seed: int, interfaces: list[str]) -> None:
        self.random = random.Random(seed)
        self.ports: list[socket.socket] = []
        for interface in interfaces:
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            port.bind((interface, 0))
            port.setblocking(False)
            self.ports.append(port)
        self.settings = {"loss": 0.0, "duplicate": 0.0, "reorder": 0.0, "delay": 0.0, "jitter": 0.0}
        self.group: dict[int, int] = {}
        self.nat: dict[int, tuple[bytes, bytes]] = {}
        self.counts = dict.fromkeys(("forwarded", "lost", "repeated", "held", "cut", "overflow"), 0)
        self.waiting: list[tuple[float, int, int, bytes]] = []
        self.sequence = 0

    def run(self) -> None:
        poll = select.poll()
        numbers = {port.fileno(): n for n, port in enumerate(self.ports)}
        for fd in (*numbers, 0):
            poll.register(fd, select.POLLIN)
        while True:
            wait = None if not self.waiting else max(0.0, self.waiting[0][0] - time.monotonic()) * 1000
            for fd, _ in poll.poll(wait):
                if fd == 0:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self.obey(json.loads(line))
                else:
                    self.read(numbers[fd])
            self.release()

    def obey(self, order: dict[str, Any]) -> None:
        self.settings.update(order.get("faults", {}))
        if "partition" in order:
            self.group = {host: n for n, hosts in enumerate(order["partition"]) for host in hosts}
        for host, pair in order.get("nat", {}).items():
            private, public = map(socket.inet_aton, pair)
            self.nat[int(host)] = private, public
        print(json.dumps(self.counts), flush=True)

    def read(self, port: int) -> None:
        for _ in range(64):
            try:
                frame, source = self.ports[port].recvfrom(65536)
            except BlockingIOError:
                return
            if source[2] != _PACKET_OUTGOING and frame[12:14] in (_ARP, _IPV4):
                self.take(port, frame)

    def take(self, port: int, frame: bytes) -> None:
        if port in self.nat and frame[12:14] == _IPV4:
            frame = translated(frame, 26, *self.nat[port])
        if frame[0] & 1:
            targets = [n for n in range(len(self.ports)) if n != port]
        else:
            targets = [frame[5]] if frame[5] < len(self.ports) else []
        for target in targets:
            if target in self.nat and frame[12:14] == _IPV4:
                private, public = self.nat[target]
                frame = translated(frame, 30, public, private)
            if self.group.get(port) != self.group.get(target):
                self.counts["cut"] += 1
            elif frame[12:14] == _ARP:
                self.put(0.0, target, frame)
            else:
                self.gamble(target, frame)

    def gamble(self, target: int, frame: bytes) -> None:
        # All dice are thrown for every frame, so that one setting does not shift the others' luck.
        lost, twice, held, late = (self.random.random() for _ in range(4))
        delay = self.settings["delay"] + self.settings["jitter"] * late
        if lost < self.settings["loss"]:
            self.counts["lost"] += 1
            return
        if held < self.settings["reorder"]:
            self.counts["held"] += 1
            delay += 0.005 + 0.03 * late
        if twice < self.settings["duplicate"]:
            self.counts["repeated"] += 1
            self.put(delay + 0.002, target, frame)
        self.put(delay, target, frame)

    def put(self, delay: float, target: int, frame: bytes) -> None:
        if len(self.waiting) >= _QUEUE_MAX:
            self.counts["overflow"] += 1
            return
        self.sequence += 1
        heapq.heappush(self.waiting, (time.monotonic() + delay, self.sequence, target, frame))

    def release(self) -> None:
        now = time.monotonic()
        while self.waiting and self.waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(self.waiting)
            try:
                self.ports[target].send(frame)
                self.counts["forwarded"] += 1
            except OSError:
                self.counts["overflow"] += 1


if __name__ == "__main__":
    Switch(int(sys.argv[1]), sys.argv[2:]).run()
