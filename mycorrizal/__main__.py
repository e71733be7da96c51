"""``python -m mycorrizal``, and the script ``mycorrizal``."""

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the command line; say how to get it where it was not installed."""
    if find_spec("click") is None or find_spec("rich") is None:
        sys.stderr.write("The command line is an extra: pip install 'mycorrizal[cli]'\n")
        sys.exit(2)
    from .cli.app import app

    app.main(prog_name="mycorrizal")


if __name__ == "__main__":
    main()
