"""``tools/bench data --path 1500``: bulk between two network namespaces joined by a veth of that MTU, without loss.

Needs root and iproute2 (Linux). On such a path a datagram is at most MTU - 28
bytes, and what a packet costs decides.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from types import TracebackType
from typing import Any

from benchmarks.data.pair import Pair, WorkerError, certificate

HOSTS = ("10.78.0.1", "10.78.0.2")


class Veth:
    """A context manager: two namespaces and the cable between them."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.names = tuple(f"mycobench{os.getpid() % 100000}{side}" for side in "ab")

    def prefixes(self) -> tuple[list[str], list[str]]:
        first, second = (["ip", "netns", "exec", name] for name in self.names)
        return first, second

    def __enter__(self) -> Veth:
        one, two = self.names
        commands = [f"ip netns add {one}", f"ip netns add {two}"]
        ends = f"mtu {self.mtu} type veth peer name cable mtu {self.mtu} netns {two}"
        commands.append(f"ip -n {one} link add cable {ends}")
        for name, host in zip(self.names, HOSTS, strict=True):
            commands += [f"ip -n {name} addr add {host}/24 dev cable", f"ip -n {name} link set lo up"]
            commands += [f"ip -n {name} link set cable up"]
        try:
            for command in commands:
                done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"{command}: {done.stderr.strip()}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        # The cable goes with the namespace it is in.
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def missing() -> str:
    """Return what keeps this from working here, "" if nothing."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return "" if shutil.which("ip") else "iproute2 is missing: run tools/peers"


def measure(mtu: int, peers: list[str], size: int, rounds: int) -> dict[str, Any]:
    """Send `size` bytes with each peer in turn, `rounds` times; print and return MB/s of every round."""
    found: dict[str, list[float]] = {peer: [] for peer in peers}
    with Veth(mtu) as veth, certificate(*HOSTS) as work:
        for turn in range(rounds):
            for peer in peers:
                try:
                    with Pair(peer, work, HOSTS, veth.prefixes()) as pair:
                        found[peer].append(pair.bulk(size)["mb_per_second"])
                        print(f"round {turn + 1}/{rounds}  {peer:14} {found[peer][-1]:7.1f} MB/s")
                except WorkerError as error:
                    print(f"round {turn + 1}/{rounds}  {peer:14} failed: {error}\n{error.trace}")
    print(f"\nbulk, {size >> 20} MiB through an MTU of {mtu}")
    for peer, rates in found.items():
        if rates:
            print(f"  {peer:14} {statistics.median(rates):7.1f} MB/s  ({min(rates):.1f}..{max(rates):.1f})")
    base = found.get("aioquic", [])
    for peer, rates in found.items():
        if peer != "aioquic" and base and rates:
            each = [mine / other for mine, other in zip(rates, base, strict=False)]
            print(f"  {peer} / stock aioquic   {statistics.median(each):.2f}  ({min(each):.2f}..{max(each):.2f})")
    return {"mtu": mtu, "bytes": size, "mb_per_second": found}
