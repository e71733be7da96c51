"""A Python node as a process: joins, says ``joined``, and waits for ``leave`` or the end of stdin."""

from __future__ import annotations

import argparse
import sys

from mycorrizal import Config, Memberlist, SerfDelegate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--join", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--serf", action="store_true")
    options = parser.parse_args()
    config = Config.local(
        name=options.name,
        bind_addr="127.0.0.1",
        bind_port=0,
        wire="msgpack",
        secret_key=bytes.fromhex(options.key) or None,
        delegate_protocol_min=2,
        delegate_protocol_max=5,
        delegate_protocol_version=5,
    )
    serf = SerfDelegate(tags={"lang": "python"}) if options.serf else None
    with Memberlist(config, delegate=serf) as members:
        members.join([options.join])
        print("joined", flush=True)
        if sys.stdin.readline().strip() == "leave":
            if serf is not None:
                serf.leave(members, timeout=10)
            else:
                members.leave(timeout=10)


if __name__ == "__main__":
    main()
