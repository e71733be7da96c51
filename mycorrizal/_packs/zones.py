"""Time zones of pandas' types, by name or offset, each as the same kind of object."""

from __future__ import annotations

from datetime import timedelta, timezone
from importlib import import_module
from typing import Any
from zoneinfo import ZoneInfo

from .._wire.arrays import Unfit

__all__ = ["pack_zone", "unpack_zone"]


def pack_zone(zone: Any) -> list[Any] | None:
    """Return `zone` as a value that travels; None is none.

    Raises:
        Unfit: it is of a kind that cannot be made again by its name.
    """
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        if zone.tzname(None) == timezone(offset).tzname(None):
            return ["offset", offset.days, offset.seconds, offset.microseconds]
    elif type(zone) is ZoneInfo and zone.key is not None:
        return ["zone", zone.key]
    elif type(zone).__module__.partition(".")[0] == "pytz" and getattr(zone, "zone", None):
        return ["pytz", zone.zone]
    raise Unfit(f"the time zone {zone!r:.80} cannot be sent", "convert it with tz_convert('Area/City')")


def unpack_zone(sent: Any) -> Any:
    """Return the time zone. Raises ValueError and its like for what is none, or is not known here."""
    match sent:
        case None:
            return None
        case ["offset", int(days), int(seconds), int(micros)]:
            return timezone(timedelta(days, seconds, micros))
        case ["zone", str(key)]:
            return ZoneInfo(key)
        case ["pytz", str(name)]:
            return import_module("pytz").timezone(name)
    raise ValueError("a time zone that is none")
