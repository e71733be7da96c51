"""Completion in the shells themselves, on a terminal: TAB, then ENTER. A name is text there, whatever it is."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mycorrizal import Node
from tests._control.fake import FakeAgent, FakeMember
from tests.cli.conftest import folder, start  # noqa: F401 - fixtures
from tests.needs import lacks

PATIENCE = 60.0
"""Seconds for one command."""
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(mycorrizal completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(mycorrizal completion zsh)"'),
    "fish": (["--no-config", "-i"], "mycorrizal completion fish | source"),
}
EVIL = ("a$(touch MARK)", "b`touch MARK`", "c;touch MARK;", "d'$(touch MARK)")
"""Each may be a node's name. (No "/" may be in one, so what they would make lands in the working directory.)"""
MANY_LINES = "g\nplain\nh$(touch MARK)\n_\nplain,i$(touch MARK)"
"""May be the name of a cluster, and of one item in what the shells read makes several."""
STUB = """#!/bin/sh
if [ "$1" = completion ] || [ -n "$_MYCORRIZAL_COMPLETE" ]; then
    exec "{python}" -m mycorrizal "$@"
fi
printf '[%s]' "$@"
"""
"""Completes as the command does; otherwise it shows what it was given."""


class Shell:
    """An interactive shell on a terminal of its own, in a directory of its own."""

    def __init__(self, name: str, where: Path) -> None:
        path = shutil.which(name)
        if path is None:
            lacks(f"{name} is missing: tools/peers installs it")
        (where / "bin").mkdir()
        command = where / "bin" / "mycorrizal"
        command.write_text(STUB.format(python=sys.executable))
        command.chmod(0o755)
        self.home = where / "home"
        self.home.mkdir()
        arguments, script = SHELLS[name]
        env = {
            **{name: text for name, text in os.environ.items() if name.startswith("MYCORRIZAL_")},
            **{"PATH": f"{where / 'bin'}:/usr/bin:/bin", "HOME": str(self.home), "ZDOTDIR": str(self.home)},
            **{"TERM": "xterm", "LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(sys.path)},
            **{"XDG_CONFIG_HOME": str(self.home), "XDG_DATA_HOME": str(self.home), "HISTFILE": "/dev/null"},
        }
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(self.home)
                os.execve(path, [path, *arguments], env)
            finally:
                os._exit(127)
        self.run(script)

    def run(self, keys: str) -> str:
        """Type `keys` and ENTER; return what the terminal shows until all of it is done."""
        os.write(self.terminal, keys.encode() + b"\r")
        os.write(self.terminal, b"printf 'do%s\\n' ne\r")
        shown, deadline = b"", time.monotonic() + PATIENCE
        while b"done" not in shown:
            ready = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"nothing more after {shown!r}"
            shown += os.read(self.terminal, 65536)
        return shown.decode("utf-8", "replace")

    def ran(self) -> bool:
        """Return whether a name was run."""
        return (self.home / "MARK").exists()

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, start: Callable[..., FakeAgent]) -> Iterator[Shell]:  # noqa: F811
    """A shell beside an agent that sees members of all kinds of names."""
    agent = start("alice", "prod")
    agent.everyone = [FakeMember(name, node=Node(name, b"\x7f\0\0\1", 1)) for name in (*EVIL, "zoe.1-x_y@z")]
    shell = Shell(request.param, tmp_path)
    yield shell
    shell.close()


def test_safe_names_are_completed(shell: Shell) -> None:
    assert "[members][--agent][alice][--cluster][prod]" in shell.run("mycorrizal mem\t --agent al\t --cluster pr\t")
    assert "[send][zoe.1-x_y@z][1]" in shell.run("mycorrizal send zo\t 1")


def test_name_that_a_shell_would_run_is_not_inserted(shell: Shell, start: Callable[..., FakeAgent]) -> None:  # noqa: F811
    start("j$(touch MARK)", "k`touch MARK`")
    start("s", MANY_LINES)
    typed = {f"send --agent alice {name[0]}\t 1": f"[{name[0]}][1]" for name in EVIL}
    typed |= {"members --agent j\t --cluster=k\t": "[--agent][j][--cluster=k]"}
    typed |= {"members --agent h\t --cluster g\t": "[--agent][h][--cluster][g]", "members --agent i\t": "[--agent][i]"}
    for keys, given in typed.items():
        shown = shell.run(f"mycorrizal {keys}")
        assert not shell.ran(), f"{keys!r}: {shown!r}"
        assert given in shown
