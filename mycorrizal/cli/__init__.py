"""The command line: ``mycorrizal``, or ``python -m mycorrizal``. Needs the extra ``cli``."""
