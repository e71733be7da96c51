"""Handlers that run in processes: what those import."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy

import mycorrizal
from mycorrizal import Codecs, Request

__all__ = ["CODECS", "Point"]


class Point:
    """A type of a program's own."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


def point_to_list(point: Point) -> list[int]:
    return [point.x, point.y]


def point_from_list(value: Any) -> Point:
    x, y = value
    return Point(int(x), int(y))


CODECS = Codecs()
CODECS.register(Point, "test.Point", point_to_list, point_from_list)


@mycorrizal.handler("square")
def square(request: Request) -> int:
    return int(request.value) ** 2


@mycorrizal.handler("whoami", processes=2)
def whoami(request: Request) -> list[Any]:
    return [os.getpid(), request.sender, request.name, request.value]


def anything(request: Request) -> Any:
    """Do what the value says."""
    match request.value:
        case numpy.ndarray():
            request.value[:] += 1  # it is the handler's own
            return request.value
        case "raise":
            raise ValueError("unlucky\nin two lines")
        case "exit":
            sys.exit(3)
        case "die":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "unsendable":
            return object()
        case "left":
            return request.deadline
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            return "went on"
        case ["hang", str(path)]:
            Path(path).write_text(str(os.getpid()))
            time.sleep(600)
        case "large":
            return bytes(1 << 17)
        case Point() as point:
            return Point(point.y, point.x)
    return [os.getpid(), request.value]


def not_a_function_of_one(request: Request) -> Any:
    def inner(request: Request) -> Any:
        return request.value

    return inner
