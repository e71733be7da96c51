"""The membership protocol: SWIM with Lifeguard, as memberlist speaks it, as a pure machine (layer 2)."""

from .machine import Swim

__all__ = ["Swim"]
