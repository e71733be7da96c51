"""The envelope: ours and the user's side by side, and what the user may not notice."""

from __future__ import annotations

from collections.abc import Iterable

from mycorrizal import BaseDelegate
from mycorrizal._replica.share import PREFIX, STATE_MAX, Share

from .harness import replica


class User(BaseDelegate):
    def __init__(self, *messages: bytes, state: bytes = b"") -> None:
        self.messages = list(messages)
        self.state = state
        self.asked: list[tuple[int, int]] = []

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        self.asked.append((overhead, limit))
        taken = []
        while self.messages and len(self.messages[0]) + overhead <= limit:
            limit -= len(self.messages[0]) + overhead
            taken.append(self.messages.pop(0))
        return taken

    def local_state(self, join: bool) -> bytes:
        return self.state


def test_messages_of_both_go_side_by_side_and_fit() -> None:
    one, other = replica("a"), replica("b")
    one.member_up("b", other.boot, 0.0)
    one.set_setting("key", b"value", 0.0)
    user = User(b"hello", PREFIX + b"\x01like ours", b"")
    share, theirs = Share(one, user), Share(other, None)
    parts = share.get_broadcasts(3, 500)
    assert sum(map(len, parts)) + 3 * len(parts) <= 500
    assert len(parts) == 4
    seen = [theirs.take_message(part, 0.0) for part in parts]
    assert seen == [None, b"hello", PREFIX + b"\x01like ours", b""]
    assert other.settings == one.settings


def test_a_packet_that_is_full_of_ours_leaves_the_users_waiting() -> None:
    one = replica("a")
    one.member_up("b", replica("b").boot, 0.0)
    one.set_setting("key", b"x" * 400, 0.0)
    user = User(b"hello")
    share = Share(one, user)
    size = len(share.get_broadcasts(3, 500)[0])
    assert user.messages == []
    user.messages.append(b"again")
    assert len(share.get_broadcasts(3, size + 3 + 5)) == 1
    assert user.asked[-1:] != [(7, 5)]
    assert user.messages == [b"again"]
    assert share.get_broadcasts(3, size + 2) == [b"again"]


def test_wrapping_never_makes_a_packet_too_long() -> None:
    share = Share(replica("a"), User(*[PREFIX + b"%d" % n for n in range(50)]))
    parts = share.get_broadcasts(3, 100)
    assert 0 < sum(map(len, parts)) + 3 * len(parts) <= 100


def test_states_of_both_go_in_one_envelope() -> None:
    one, other = replica("a"), replica("b")
    one.set_setting("key", b"value", 0.0)
    for state in (b"", b"of the user", PREFIX + b"\x03" + b"\xff" * 4):
        data = Share(one, User(state=state)).local_state(True)
        assert Share(other, None).take_state(data, True, 0.0) == state
    assert other.settings == one.settings
    assert Share(other, None).take_state(Share(one, None).local_state(True), True, 0.0) == b""


def test_what_has_no_envelope_is_the_users() -> None:
    share = Share(replica("a"), None)
    for data in (b"", b"hello", PREFIX[:2]):
        assert share.take_message(data, 0.0) == data
        assert share.take_state(data, False, 0.0) == data


def test_a_broken_envelope_is_a_count() -> None:
    one = replica("a")
    share = Share(one, None)
    for data in (PREFIX, PREFIX + b"\x09x", PREFIX + b"\x03"):
        assert share.take_message(data, 0.0) is None
    for data in (PREFIX, PREFIX + b"\x01", PREFIX + b"\x03\x00", PREFIX + b"\x03\x00\x00\x00\x09short"):
        assert share.take_state(data, False, 0.0) == b""
    assert one.counters["rejected"] == 7
    assert share.take_message(PREFIX + b"\x01garbage", 0.0) is None
    assert share.take_state(PREFIX + b"\x03\x00\x00\x00\x01xuser", False, 0.0) == b"user"
    assert one.counters["rejected"] == 9


def test_a_state_of_the_users_that_leaves_no_room_goes_without_ours() -> None:
    one, other = replica("a"), replica("b")
    one.set_setting("key", b"value", 0.0)
    data = Share(one, User(state=bytes(STATE_MAX - 8))).local_state(False)
    assert len(data) == STATE_MAX
    assert len(Share(other, None).take_state(data, False, 0.0)) == STATE_MAX - 8
    assert not other.settings
    assert one.counters["state.left_out"] == other.counters["state.missing"] == 1


def test_without_gossip_everything_of_the_users_passes_untouched() -> None:
    one = replica("a", gossip=False)
    one.set_setting("key", b"value", 0.0)
    user = User(PREFIX + b"\x01", b"hello", state=PREFIX)
    share = Share(one, user)
    assert share.get_broadcasts(3, 100) == [PREFIX + b"\x01", b"hello"]
    assert user.asked == [(3, 100)]
    assert share.local_state(True) == PREFIX
    assert share.take_message(PREFIX + b"\x01", 0.0) == PREFIX + b"\x01"
    assert share.take_state(PREFIX, True, 0.0) == PREFIX
    assert Share(one, None).get_broadcasts(3, 100) == []
    assert Share(one, None).local_state(True) == b""


def test_a_state_that_is_cut_off_anywhere_is_refused_and_merged_by_nobody() -> None:
    one = replica("a")
    for key in ("key", "other", "third"):
        one.set_setting(key, b"value", 0.0)
    data = Share(one, None).local_state(True)
    for end in range(len(PREFIX), len(data)):
        other = replica("b")
        assert Share(other, None).take_state(data[:end], True, 0.0) == b""
        assert other.settings == {} and other.counters["rejected"] == 1, end
