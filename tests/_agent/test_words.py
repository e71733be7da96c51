"""Errors of an agent's parts name what the agent's caller can set."""

from __future__ import annotations

import pickle

import pytest

from mycorrizal._agent.words import MEMBERLIST, PLANE, in_words
from mycorrizal.exceptions import BindError, ConfigError


def test_fields_hints_and_texts_are_the_agents() -> None:
    hint = "set advertise_addr, or bind_addr='127.0.0.1'"
    with pytest.raises(ConfigError) as caught, in_words(MEMBERLIST):
        raise ConfigError("advertise_addr", "bound to ::", hint=hint)
    assert caught.value.field == "advertise"
    assert caught.value.hint == "set advertise, or bind='127.0.0.1'"
    assert str(caught.value) == "advertise: bound to :: (set advertise, or bind='127.0.0.1')"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_port_of_the_data_plane_is_another_setting() -> None:
    wanted = r"^cannot listen on :: port 7 \(check bind and quic_port\)$"
    with pytest.raises(BindError, match=wanted) as caught, in_words(PLANE):
        raise BindError("cannot listen on :: port 7", node="::7", hint="check bind and port")
    assert caught.value.node == "::7"
    with pytest.raises(BindError, match="^no$") as without, in_words(PLANE):
        raise BindError("no")
    assert without.value.hint is None


def test_other_errors_stay() -> None:
    with pytest.raises(OSError, match="bind_addr"), in_words(MEMBERLIST):
        raise OSError("bind_addr")
