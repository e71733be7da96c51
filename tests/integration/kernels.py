"""A real Jupyter kernel that runs cells, as a notebook's does."""

from __future__ import annotations

import gc
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel
from jupyter_core.utils import ensure_event_loop

from .conftest import ROOT

__all__ = ["Kernel"]


class Kernel:
    """A kernel and its client."""

    def __init__(self, folder: Path = ROOT) -> None:
        self.manager, self.client = start_new_kernel(cwd=str(folder))

    def run(
        self, code: str, seconds: float = 20.0, on_text: Callable[[], object] | None = None, *, cell: str | None = None
    ) -> tuple[str, str]:
        """Execute a cell; return the name of what it raised, and all that it wrote.

        Args:
            on_text: called when it writes something.
            cell: the id that JupyterLab would send along with it; None sends none, as other programs do.
        """
        texts: list[str] = []

        def output(message: dict[str, Any]) -> None:
            content = message["content"]
            text = content.get("text") or content.get("data", {}).get("text/plain") or ""
            if text:
                texts.append(text.strip())
                if on_text is not None:
                    on_text()

        self.client.session.metadata = {} if cell is None else {"cellId": cell}
        reply = self.client.execute_interactive(textwrap.dedent(code), timeout=seconds, output_hook=output)
        return reply["content"].get("ename", ""), " ".join(texts)

    def interrupted(self, code: str, seconds: float = 0.1) -> tuple[str, str]:
        """Execute a cell and interrupt it `seconds` after it has begun; like ``run``."""
        timers: list[threading.Timer] = []

        def begun() -> None:
            if not timers:
                timers.append(threading.Timer(seconds, self.manager.interrupt_kernel))
                timers[0].start()

        outcome = self.run(f"print('begins', flush=True)\n{textwrap.dedent(code)}", on_text=begun)
        timers[0].join()
        return outcome

    def end(self) -> None:
        """Kill it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        # Event loops that the client leaves open, or a later test would be blamed for their warnings.
        ensure_event_loop().close()
        gc.collect()
