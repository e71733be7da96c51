"""The door to a logger: what the user's handlers raise is counted, shown once, and goes no further."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mycorrizal._wire.text import Log, logger, text_of


class Failing(logging.Handler):
    """Raises what it is told to."""

    error: type[BaseException] = ValueError

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


@pytest.fixture
def failing() -> Iterator[Failing]:
    handler = Failing()
    logging.getLogger("mycorrizal.test").addHandler(handler)
    yield handler
    logging.getLogger("mycorrizal.test").removeHandler(handler)


def test_a_handler_that_raises_is_counted_and_shown_once(failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    log, before = logger("mycorrizal.test"), Log.faults
    for number in range(3):
        log.warning("number %d", number)
    assert Log.faults == before + 3
    assert capsys.readouterr().err.count("Traceback") == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_passes_through_on_a_thread_that_is_not_ours(
    failing: Failing, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing.error = error
    log = logger("mycorrizal.test")
    with pytest.raises(error):
        log.warning("text")
    monkeypatch.setattr(Log, "ours", staticmethod(lambda: True))
    log.warning("text")


def test_a_filter_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ValueError

    found, before = logging.getLogger("mycorrizal.test"), Log.faults
    found.addFilter(refuse)
    try:
        logger("mycorrizal.test").warning("text")
    finally:
        found.removeFilter(refuse)
    assert Log.faults == before + 1


def test_a_value_that_cannot_be_shown_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(ValueError):
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    logger("mycorrizal.test").warning("%s and %r", Mute(), Mute())
    assert caplog.messages == ["<Mute that cannot be shown> and <Mute that cannot be shown>"]
    assert text_of(Mute()) == "Mute, whose text cannot be made"


def test_a_record_tells_its_own_place(caplog: pytest.LogCaptureFixture) -> None:
    logger("mycorrizal.test").warning("text")
    assert caplog.records[0].filename == "test_text_handlers.py"
