"""What a notebook shows as tables: escaped, of bounded size, whatever other nodes call themselves."""

from __future__ import annotations

from typing import Any

from mycorrizal import Health, Member, Members, Node, NodeState, PeerInfo, Service, Services, Settings
from mycorrizal.exceptions import RemoteProtocolError
from mycorrizal.types import HTML_ROWS_MAX, HTML_TEXT_MAX, Figures, Peers, html_table, html_text

EVIL = "<script>alert('x')</script> & \"quotes\""
SAFE = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;quotes&quot;"


def member(name: str, tags: dict[str, str] | None = None) -> Member:
    node = Node(name, b"\x7f\0\0\1", 7946)
    return Member(name, "127.0.0.1", 7946, None, tags or {}, NodeState.SUSPECT, None, node)


def test_text_is_escaped_and_cut_and_always_utf_8() -> None:
    assert html_text(EVIL) == SAFE
    assert html_text("\udcff\ud800") == r"\udcff\ud800"
    assert html_text("a\nb\u202ec\x1b") == r"a\nb\u202ec\x1b"
    assert html_text(7) == "7"
    assert html_text("&" * HTML_TEXT_MAX) == "&amp;" * HTML_TEXT_MAX
    assert html_text("&" * (HTML_TEXT_MAX + 1)) == "&amp;" * (HTML_TEXT_MAX - 1) + "…"


def test_marks_that_turn_text_and_controls_are_shown_as_what_they_are() -> None:
    evil = "eve\u202e\u2066\u200f\u061c\u2028\x9b\x85\x7f\x1b\n"
    shown = r"eve\u202e\u2066\u200f\u061c\u2028\x9b\x85\x7f\x1b\n"
    assert html_text(evil) == shown
    assert html_text("Zoë 日本 שלום") == "Zoë 日本 שלום"
    html = Members([member(evil, {evil: evil})])._repr_html_()
    assert html.isprintable() and html.count(shown) == 3


def test_a_table_shows_so_many_rows_and_counts_the_others() -> None:
    rows = [(number,) for number in range(HTML_ROWS_MAX + 3)]
    assert html_table((EVIL,), rows[:2]).count("<tr>") == 3
    assert SAFE in html_table((EVIL,), [])
    assert "more" not in html_table(("n",), rows[:HTML_ROWS_MAX])
    for html in (html_table(("n",), iter(rows)), html_table(("n",), rows[:HTML_ROWS_MAX], len(rows))):
        assert html.count("<tr>") == 1 + HTML_ROWS_MAX
        assert html.endswith("<div>and 3 more</div>")


def test_members() -> None:
    html = Members([member(EVIL, {"role": EVIL, "a": "b"}), member("\udcffbob")])._repr_html_()
    assert EVIL not in html
    assert html.count(SAFE) == 2
    assert "a=b role=" in html and "127.0.0.1:7946" in html and "suspect" in html and r"\udcffbob" in html
    html.encode()


class Fake:
    """Stands for whatever ``Settings`` and ``Services`` ask, and gives back what it was made of."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def test_settings() -> None:
    def decode(value: Any, sender: str, what: str) -> Any:
        if value is None:
            raise RemoteProtocolError("none that we accept")
        return value

    kept = {
        "rate": Fake(value=0.5, writer="alice"),
        EVIL: Fake(value=EVIL, writer=EVIL),
        "bad": Fake(value=None, writer="bob"),
    }
    sharing: Any = Fake(replica=Fake(settings=kept))
    watching: Any = Fake(decode=decode)
    codecs: Any = None
    html = Settings(sharing, watching, codecs, "alice")._repr_html_()
    assert EVIL not in html and html.count("&lt;script&gt;") == 3
    assert "0.5" in html and "(cannot be read)" in html
    kept |= {f"key {number}": Fake(value=number, writer="alice") for number in range(HTML_ROWS_MAX)}
    assert Settings(sharing, watching, codecs, "alice")._repr_html_().endswith("<div>and 3 more</div>")


def test_services() -> None:
    offered = {
        ("alice", "api"): Service("api", "alice", "127.0.0.1", 8080, {"v": EVIL}, True, "api"),
        (EVIL, "b"): Service(EVIL, EVIL, "127.0.0.1", None, None, False, "b"),
        ("broken", "c"): None,
    }
    sharing: Any = Fake(replica=Fake(services={key: key for key in offered}))
    watching: Any = Fake(service=lambda node, service_id, record: offered[record])
    codecs: Any = None
    html = Services(sharing, watching, codecs, "alice")._repr_html_()
    assert EVIL not in html and html.count(SAFE) == 2
    assert html.count("<tr>") == 3
    assert "127.0.0.1:8080" in html and "False" in html and "None" not in html


def test_health_peers_and_figures_are_tables() -> None:
    well = Health("alice", "c", 0, 2, 0, 0, 1, 0, 0, ())
    assert "all is well" in well._repr_html_() and "<ul>" not in well._repr_html_()
    ill = Health(EVIL, "c", 1, 2, 1, 0, 1, 0, 0, (EVIL,))
    assert f"<li>{SAFE}</li>" in ill._repr_html_() and "not all is well" in ill._repr_html_()
    peers = Peers([PeerInfo(EVIL, None, "connected", True, 1, 0.0015, 1200, 1, 2, 3, {}, "quic")])
    assert SAFE in peers._repr_html_() and "1.50 ms" in peers._repr_html_()
    assert peers == [*peers] and isinstance(peers, list)
    assert "<td style='text-align:left'>7</td>" in Figures({"a.b": 7})._repr_html_()
