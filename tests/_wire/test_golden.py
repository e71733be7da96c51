"""The wire against Go's own bytes; see ``tests/golden.py`` for who runs these checks."""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import Any

import pytest

from mycorrizal import RemoteProtocolError
from mycorrizal._wire import limits, lzw
from mycorrizal._wire import messages as m
from mycorrizal._wire.codec import body_codec, decode_message, encode_message
from mycorrizal._wire.compression import compress_message, decompress_message
from mycorrizal._wire.label import add_label, peel_label
from mycorrizal._wire.packet import PacketCodec, join_compound, split_compound
from mycorrizal._wire.security import (
    decrypt_payload,
    encrypt_payload,
    encrypted_length,
    encryption_overhead,
    encryption_version,
)
from mycorrizal._wire.stream import StreamCodec, StreamReader
from mycorrizal.config import Config
from mycorrizal.types import host_of
from tests.golden import STRUCTS, Case, body_of, config_of, fields_of, generate, keyring_of

GO = body_codec("msgpack")
OURS = body_codec("cbor")
ERROR_KEY = "000102030405060708090a0b0c0d0e0f"
"""The key of the cases of ``stream.error`` that need one, taken from the notes of the others."""


def no_nonce() -> bytes:
    raise AssertionError("nothing should be encrypted here")


# -- bodies ---------------------------------------------------------------------------


def check_message(case: Case) -> None:
    message: Any = body_of(case["kind"].partition(".")[2], case["input"]["fields"])
    wire = bytes.fromhex(case["output"]["hex"])
    assert wire[0] == case["input"]["type"] == message.TYPE
    assert GO.encode(message) == wire[1:]
    assert GO.decode(type(message), wire, 1) == (message, len(wire))
    if not isinstance(message, m.Compress):
        assert encode_message(GO, message) == wire
        assert decode_message(GO, wire) == message
        assert decode_message(OURS, encode_message(OURS, message)) == message


def check_body(case: Case) -> None:
    body = body_of(case["kind"].partition(".")[2], case["input"]["fields"])
    wire = bytes.fromhex(case["output"]["hex"])
    assert GO.encode(body) == wire
    assert GO.decode(type(body), wire + b"rest") == (body, len(wire))
    assert OURS.decode(type(body), OURS.encode(body) + b"rest")[0] == body


def check_decode(case: Case) -> None:
    cls = STRUCTS[case["input"]["struct"]]
    data = bytes.fromhex(case["input"]["body_hex"])
    if case["output"]["ok"]:
        assert fields_of(GO.decode(cls, data)[0]) == case["output"]["fields"]
    else:
        with pytest.raises(RemoteProtocolError):
            GO.decode(cls, data)


# -- layers of a packet -----------------------------------------------------------------


def check_compound_encode(case: Case) -> None:
    parts = [bytes.fromhex(part) for part in case["input"]["parts_hex"]]
    assert [join_compound(parts).hex()] == case["output"]["messages_hex"]


def check_compound_decode(case: Case) -> None:
    data, output = bytes.fromhex(case["input"]["hex"]), case["output"]
    if output["ok"]:
        parts, lost = split_compound(data)
        assert ([part.hex() for part in parts], lost) == (output["parts_hex"], output["truncated"])
    else:
        with pytest.raises(RemoteProtocolError):
            split_compound(data)


def check_label_encode(case: Case) -> None:
    assert case["output"]["ok"]
    packet = add_label(case["input"]["label"].encode(), bytes.fromhex(case["input"]["payload_hex"]))
    assert packet.hex() == case["output"]["hex"]


def check_label_decode(case: Case) -> None:
    packet, output = bytes.fromhex(case["input"]["hex"]), case["output"]
    if output["ok"]:
        label, rest = peel_label(packet)
        assert (label.hex(), rest.hex()) == (output["label_hex"], output["rest_hex"])
    else:
        with pytest.raises(RemoteProtocolError, match=output["go_error"]):
            peel_label(packet)


def check_lzw_encode(case: Case) -> None:
    given, output = case["input"], case["output"]
    plain = bytes.fromhex(given["hex"]) if "hex" in given else generate(given["generator"], given["len"])
    assert hashlib.sha256(plain).hexdigest() == given["sha256"]
    packed = lzw.compress(plain)
    assert len(packed) == output["compressed_len"]
    assert hashlib.sha256(packed).hexdigest() == output["compressed_sha256"]
    assert packed.hex() == output.get("compressed_hex", packed.hex())
    assert lzw.decompress(packed, len(plain)) == plain


def check_lzw_prefix_table(case: Case) -> None:
    table = case["output"]["table"]
    plain = generate(case["input"]["generator"], max(size for size, _ in table))
    for size, digest in table:
        packed = lzw.compress(plain[:size])
        assert hashlib.sha256(packed).hexdigest()[:16] == digest, size
        assert lzw.decompress(packed, size) == plain[:size]


def check_lzw_decode(case: Case) -> None:
    data, output = bytes.fromhex(case["input"]["hex"]), case["output"]
    if output["ok"]:
        plain = lzw.decompress(data, output["len"])
        assert (plain.hex(), len(plain)) == (output["hex"], output["len"])
    else:
        with pytest.raises(RemoteProtocolError, match=output["go_error"]):
            lzw.decompress(data, 1 << 20)


def check_compress_payload(case: Case) -> None:
    payload = bytes.fromhex(case["input"]["payload_hex"])
    compressed = bytes.fromhex(case["output"]["hex"])
    assert compress_message(GO, payload) == compressed
    packets = PacketCodec(config_of({}), keyring_of(config_of({})), no_nonce)
    assert packets.seal([payload], crc=False) == [compressed if case["output"]["used_in_packets"] else payload]


def check_compress_decode(case: Case) -> None:
    body, output = bytes.fromhex(case["input"]["hex"]), case["output"]

    def read() -> bytes:
        return decompress_message(GO, GO.decode(m.Compress, body)[0], limits.DECOMPRESSED_MAX)

    if output["ok"]:
        assert read().hex() == output["payload_hex"]
    else:
        with pytest.raises(RemoteProtocolError, match=output["go_error"]):
            read()


def check_encrypt_payload(case: Case) -> None:
    given, output = case["input"], case["output"]
    key, aad, plain = (bytes.fromhex(given[name]) for name in ("key_hex", "aad_hex", "plaintext_hex"))
    payload = encrypt_payload(given["version"], key, plain, aad, bytes.fromhex(given["nonce_hex"]))
    assert payload.hex() == output["hex"]
    assert len(payload) == encrypted_length(given["version"], len(plain)) == output["predicted_length"]
    assert encryption_overhead(given["version"]) == output["overhead_used_in_budgets"]
    assert decrypt_payload([key], payload, aad) == plain


def check_decrypt_payload(case: Case) -> None:
    given, output = case["input"], case["output"]
    keys = [bytes.fromhex(key) for key in given["keys_hex"]]
    payload, aad = bytes.fromhex(given["hex"]), bytes.fromhex(given["aad_hex"])
    if output["ok"]:
        assert decrypt_payload(keys, payload, aad).hex() == output["plaintext_hex"]
    else:
        with pytest.raises(RemoteProtocolError, match=output["go_error"]):
            decrypt_payload(keys, payload, aad)


# -- whole packets ------------------------------------------------------------------------


def label_bytes(config: Config) -> int:
    """Return the bytes before those of the message itself: type, length and text of the label, if there is one."""
    return 2 + len(config.label.encode()) if config.label else 0


def check_packet_send(case: Case) -> None:
    config = config_of(case["input"])
    message, wire = bytes.fromhex(case["input"]["message_hex"]), bytes.fromhex(case["output"]["wire_hex"])
    start = 1 + label_bytes(config)
    packets = PacketCodec(config, keyring_of(config), lambda: wire[start : start + 12])
    crc = case["input"]["dest_pmax"] >= 5
    assert packets.seal([message], crc=crc) == [wire]
    if message[0] == m.MessageType.COMPOUND:
        assert packets.seal(split_compound(message[1:])[0], crc=crc) == [wire]
    receiver = PacketCodec(config.replace(gossip_verify_incoming=False), keyring_of(config), no_nonce)
    assert not receiver.open(wire).rejected


def check_packet_ingest(case: Case) -> None:
    config = config_of(case["input"])
    packets = PacketCodec(config, keyring_of(config), no_nonce)
    users: list[str] = []
    logged = False
    try:
        opened = packets.open(bytes.fromhex(case["input"]["wire_hex"]))
        users = sorted(message.data.hex() for message in opened.messages if isinstance(message, m.User))
        logged = bool(opened.rejected)
    except RemoteProtocolError:
        logged = True
    assert users == case["output"]["user_messages_hex_sorted"]
    assert logged == case["output"]["logged"]


# -- streams --------------------------------------------------------------------------------


def codec_of(case: Case, wire: bytes, *, answer: bool) -> StreamCodec:
    """Return the codec of the side that wrote `wire`, which will draw the same nonce again."""
    config = config_of(case["input"]["config"])
    start = 6 + (0 if answer else label_bytes(config))
    return StreamCodec(config, keyring_of(config), lambda: wire[start : start + 12])


def read_in_pieces(reader: StreamReader, data: bytes) -> m.Message | None:
    """Feed `data` in random pieces; the message must not come before it is complete."""
    rng = random.Random(len(data))
    at = 0
    while at < len(data):
        size = rng.choice((1, 1, 2, 7, 100))
        message = reader.feed(data[at : at + size])
        at += size
        if message is not None:
            assert at >= len(data)
            assert reader.wanted == 0
            return message
        assert reader.wanted > 0
    reader.feed_eof()
    return None


def check_initiator(case: Case, message: m.Message) -> None:
    wire = bytes.fromhex(case["output"]["wire_hex"])
    codec = codec_of(case, wire, answer=False)
    assert codec.seal(message, answer=False) == wire
    assert codec.reader(answer=False).feed(wire) == message
    assert read_in_pieces(codec.reader(answer=False), wire) == message


def push_pull_of(nodes: list[dict[str, Any]], user_state: bytes, join: bool) -> m.PushPull:
    states = (body_of(m.PushNodeState, node) for node in nodes)
    return m.PushPull(tuple(states), user_state, join)  # type: ignore[arg-type]


def check_push_pull_initiator(case: Case) -> None:
    given = case["input"]
    check_initiator(
        case, push_pull_of(given["nodes_in_order"], bytes.fromhex(given["user_state_hex"]), given["join"])
    )


def check_ping_initiator(case: Case) -> None:
    check_initiator(case, body_of(m.Ping, case["input"]["fields"]))  # type: ignore[arg-type]


def check_user_initiator(case: Case) -> None:
    check_initiator(case, m.User(bytes.fromhex(case["input"]["message_hex"])))


def check_push_pull_responder(case: Case) -> None:
    """The bytes of the answer; what the merge makes of the request is the machine's test."""
    output, wire = case["output"], bytes.fromhex(case["output"]["response_wire_hex"])
    codec = codec_of(case, wire, answer=True)
    request = read_in_pieces(codec.reader(answer=False), bytes.fromhex(case["input"]["request_wire_hex"]))
    assert isinstance(request, m.PushPull)
    assert [f"{str(request.join).lower()}:{request.user_state.hex()}"] == output["merge_remote_state_calls"]
    version = case["input"]["config"]["protocol_version"]
    vsn = bytes((1, 5, version, 0, 0, 0))
    me = m.PushNodeState(case["input"]["config"]["name"], bytes((10, 0, 0, 9)), 7946, None, 1, 0, vsn)
    answer = m.PushPull((me,), b"S2", request.join)
    assert codec.seal(answer, answer=True) == wire
    assert read_in_pieces(codec.reader(answer=True), wire) == answer
    merged = [fields_of(node) for node in (*request.nodes, me) if node.state == 0]
    assert sorted(merged, key=lambda node: str(node["Name"])) == output["table_after"]


def answer_to(codec: StreamCodec, name: str, request: bytes) -> bytes:
    """Return what a node without a table answers to a stream that is then half-closed."""
    reader = codec.reader(answer=False)
    try:
        message = read_in_pieces(reader, request)
    except RemoteProtocolError:
        return reader.reply or b""
    if isinstance(message, m.Ping) and message.node in ("", name):
        return codec.seal(m.AckResp(message.seq_no, None), answer=True)
    return b""


def check_ping_responder(case: Case) -> None:
    wire = bytes.fromhex(case["output"]["response_wire_hex"])
    codec = codec_of(case, wire, answer=True)
    request = bytes.fromhex(case["input"]["request_wire_hex"])
    assert answer_to(codec, case["input"]["config"]["name"], request) == wire


def check_stream_error(case: Case) -> None:
    keyed = "key" in case["note"] and not case["note"].startswith("no key")
    keyed |= case["note"].startswith("declared encrypted length")
    config = config_of({
        "key_hex": ("ff" * 16 if case["note"].startswith("wrong key") else ERROR_KEY) if keyed else None,
        "enable_compression": False,
        "gossip_verify_outgoing": False,
    })  # fmt: skip
    codec = StreamCodec(config, keyring_of(config), no_nonce)
    request = bytes.fromhex(case["input"]["request_wire_hex"])
    assert answer_to(codec, "node-a", request).hex() == case["output"]["response_wire_hex"]


def check_half_closed(case: Case) -> None:
    config = config_of({**case["input"], "enable_compression": False, "gossip_verify_outgoing": False})
    codec = StreamCodec(config, keyring_of(config), no_nonce)
    request = bytes.fromhex(case["input"]["request_hex"])
    assert answer_to(codec, "node-a", request).hex() == case["output"]["response_hex"]
    reader = codec.reader(answer=False)
    with contextlib.suppress(RemoteProtocolError):
        reader.feed(request)
    assert (reader.reply or b"").hex() == ("" if "ping" in case["note"] else case["output"]["response_hex"])


# -- formulas -------------------------------------------------------------------------------


def check_encrypted_length(case: Case) -> None:
    for version, size, length in case["output"]["table"]:
        assert encrypted_length(version, size) == length
    assert [encryption_version(protocol) for protocol in range(1, 6)] == [0, 1, 1, 1, 1]


def check_address_text(case: Case) -> None:
    for addr, text in case["output"]["table"]:
        host = host_of(bytes.fromhex(addr))
        assert (f"[{host}]:7946" if ":" in host else f"{host}:7946") == text


CHECKS = {
    **{f"message.{name}": check_message for name, cls in STRUCTS.items() if hasattr(cls, "TYPE")},
    **{f"body.{name}": check_body for name, cls in STRUCTS.items() if not hasattr(cls, "TYPE")},
    "decode": check_decode,
    "compound.encode": check_compound_encode,
    "compound.decode": check_compound_decode,
    "label.encode": check_label_encode,
    "label.decode": check_label_decode,
    "lzw.encode": check_lzw_encode,
    "lzw.prefix_table": check_lzw_prefix_table,
    "lzw.decode": check_lzw_decode,
    "compress.payload": check_compress_payload,
    "compress.decode": check_compress_decode,
    "encrypt.payload": check_encrypt_payload,
    "decrypt.payload": check_decrypt_payload,
    "packet.send": check_packet_send,
    "packet.ingest": check_packet_ingest,
    "stream.push_pull.initiator": check_push_pull_initiator,
    "stream.push_pull.responder": check_push_pull_responder,
    "stream.ping.initiator": check_ping_initiator,
    "stream.ping.responder": check_ping_responder,
    "stream.user.initiator": check_user_initiator,
    "stream.error": check_stream_error,
    "stream.half_closed": check_half_closed,
    "formula.encrypted_length": check_encrypted_length,
    "formula.address_text": check_address_text,
}


@pytest.mark.parametrize("label", ["lab", "grün", "東京"])
def test_a_label_beyond_ascii(label: str) -> None:
    """Go's cases have labels of ASCII alone; these are put together here, as protocol version 2 encrypts."""
    text, key, nonce = label.encode(), bytes(range(16)), bytes(range(100, 112))
    given = {
        "label": label, "key_hex": key.hex(), "enable_compression": False, "gossip_verify_incoming": True,
        "gossip_verify_outgoing": True, "protocol_version": 2,
    }  # fmt: skip
    header = bytes((m.MessageType.HAS_LABEL, len(text))) + text

    def case(given: dict[str, Any], frame: bytes, plain: bytes) -> Case:
        wire = header + frame + encrypt_payload(1, key, plain, frame + text, nonce)
        return {"input": given, "output": {"wire_hex": wire.hex()}}

    message = bytes((m.MessageType.USER,)) + b"hello"
    check_packet_send(case({**given, "dest_pmax": -1, "message_hex": message.hex()}, b"", message))
    unlabelled = config_of({**given, "label": "", "key_hex": None})
    plain = StreamCodec(unlabelled, keyring_of(unlabelled), no_nonce).seal(m.User(b"hello"), answer=False)
    frame = bytes((m.MessageType.ENCRYPT,)) + encrypted_length(1, len(plain)).to_bytes(4, "big")
    check_user_initiator(case({"config": given, "message_hex": b"hello".hex()}, frame, plain))
