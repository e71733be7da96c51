"""Faults in the errors and the handles."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("MycorrizalError.__reduce__", ", dict(self.__dict__)", "", "an error keeps its fields in a copy"),
    Fault("_rebuilt", "    error.args = arguments\n", "    error.args = ()\n", "an error keeps its text in a copy"),
    Fault("Handle.__reduce__", "raise TypeError(", "return str(", "a handle refuses to be copied"),
    Fault("Keyring.__reduce__", "self._primary", "None", "a copied keyring encrypts with the same key"),
]
