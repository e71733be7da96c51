"""A data plane in a Jupyter kernel: blocking calls in cells, on a thread that runs an event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .kernels import Kernel

pytestmark = pytest.mark.filterwarnings("ignore")  # what other people's packages say is not our matter


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    one = Kernel()
    yield one
    one.end()


def test_cells_create_ask_are_interrupted_and_go_on(kernel: Kernel) -> None:
    error, text = kernel.run("""
        %xmode Minimal
        import asyncio
        from mycorrizal import DataPlane
        a, b = DataPlane("a", key=bytes(range(32))), DataPlane("b", key=bytes(range(32)))
        a.add_peer("b", b.address)
        b.add_peer("a", a.address)
        b.on_request("echo")(lambda request: request.value)
        print(asyncio.get_running_loop().is_running())
    """)
    # A kernel may send two lines at once, or each by itself.
    assert (error, text.split()) == ("", "Exception reporting mode: Minimal True".split())
    assert kernel.run("a.request('b', 'echo', [1, 2])") == ("", "[1, 2]")

    interrupted = []

    def interrupt() -> None:
        time.sleep(0.1)  # until it really waits
        interrupted.append(time.monotonic())
        kernel.manager.interrupt_kernel()

    kernel.run("import threading; free = threading.Event(); b.on_request('hang')(lambda request: free.wait(20)); None")
    for call in ("a.receive()", "a.request('b', 'hang', timeout=None)", "list(a.messages())"):
        error, _ = kernel.run(f"print('waits', flush=True); {call}", on_text=interrupt)
        assert error == "KeyboardInterrupt"
        assert time.monotonic() - interrupted[-1] < 2
    assert len(interrupted) == 3
    kernel.run("free.set()")
    assert kernel.run("b.send('a', 'later'); a.receive(5).value") == ("", "'later'")
    assert kernel.run("a.request('b', 'echo', 'on')") == ("", "'on'")
    assert kernel.run("await asyncio.wrap_future(a.request_async('b', 'echo', 'awaited'))") == ("", "'awaited'")
    assert kernel.run("a.peers()[0].connections, a.close(), b.close()") == ("", "(1, None, None)")
