"""Builds the site with Sphinx and checks what came out: links, names, searches. ``tools/docs`` starts it."""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
import time
from pathlib import Path

from documenting.names import missing, public_names
from documenting.pages import broken_links
from documenting.searching import Index

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "out" / "docs"
SEARCHED = ("wrong key", "PeerBusy", "rolling restart", "NameInUse", "systemd", "replicas", "SIGTERM")
"""What a reader types in who has a problem; each must lead to a page."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/docs", description="Build the documentation as a site.")
    parser.add_argument("--find", metavar="TEXT", help="search in the site that was built last")
    parser.add_argument("--serve", metavar="PORT", nargs="?", type=int, const=8000, help="serve it on loopback")
    parser.add_argument("--external", action="store_true", help="ask for every address outside")
    options = parser.parse_args()
    if options.find is not None:
        return find(options.find)
    if code := build("html", SITE):
        return code
    problems = faults()
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    print(f"{SITE.relative_to(ROOT)}/index.html")
    if options.external and (code := build("linkcheck", SITE.parent / "docs-links")):
        return code
    if options.serve is not None:
        serve(options.serve)
    return 0


def build(builder: str, out: Path) -> int:
    """Run Sphinx anew, without what an earlier run knew: a page that was read then would not be warned of again."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    doctrees = ["-d", str(out.parent / "doctrees"), "-E"]
    command = [sys.executable, "-m", "sphinx", "-b", builder, "-q", "-W", "--keep-going", *doctrees, "docs", str(out)]
    code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
    print(f"sphinx {builder}: {'FAILED' if code else 'ok'} ({time.monotonic() - began:.0f} s)")
    return code


def faults() -> list[str]:
    """Return a line for each thing that is not as it should be in the site that was built."""
    index = Index(SITE / "searchindex.js")
    return [
        *broken_links(SITE),
        *(f"not in the reference: {name}" for name in missing(SITE / "objects.inv", public_names())),
        *(f"a search finds nothing: {text}" for text in SEARCHED if not index.find(text)),
    ]


def find(text: str) -> int:
    """Print the pages that a search finds, and return 1 if there are none."""
    if not (SITE / "searchindex.js").exists():
        print("nothing is built yet: tools/docs", file=sys.stderr)
        return 2
    found = Index(SITE / "searchindex.js").find(text)
    print(*found, sep="\n")
    return 0 if found else 1


def serve(port: int) -> None:
    """Serve the site on loopback until Ctrl-C."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/")
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
