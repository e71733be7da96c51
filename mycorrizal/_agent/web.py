"""``agent.serve_metrics()``: what the agent has to say to Prometheus, and to whatever asks if it is well."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from .._runtime.threads.counters import Counters
from ..agentconfig import check_port
from ..exceptions import LocalProtocolError
from ..types import Address
from .exposition import health_page, metrics_page

if TYPE_CHECKING:
    from .assembly import Assembly

__all__ = ["METRICS_PORT", "serve_metrics"]

METRICS_PORT = 9464
"""What exporters of OpenTelemetry listen on where nobody chose."""
_HOST = "127.0.0.1"


def serve_metrics(parts: Assembly, port: int) -> Address:
    """See ``Agent.serve_metrics``."""
    from .._runtime.web.server import WebServer  # late: who is not scraped does without

    check_port("metrics_port", port)
    if parts.web is not None:
        raise LocalProtocolError(f"metrics are served on port {parts.web.address[1]} already", node=parts.name)
    found = weakref.proxy(parts)  # the server does not keep an agent that was dropped
    pages = {"/metrics": partial(metrics_page, found), "/healthz": partial(health_page, found)}
    counters = parts.web_counters = Counters("web.requests", "web.refused", "web.dropped", "web.faults")
    server = WebServer(parts.name, (_HOST, port), pages, counters)
    server.start()
    parts.web = server
    return server.address
