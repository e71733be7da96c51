"""The planted faults of ``tools/mutants``: each still applies, and their tests are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from planted.fault import DoesNotApply, Fault, levels, place, sources, symbols
from planted.run import all_faults

ROOT = Path(__file__).resolve().parent.parent
FAULTS = [fault for _, fault in all_faults()]


def test_planted_faults_still_apply() -> None:
    files, wrong = sources(ROOT), []
    for fault in FAULTS:
        try:
            assert levels(place(fault, files).path, ROOT)
        except DoesNotApply as error:
            wrong.append(str(error))
    assert wrong == []
    assert all(fault.old != fault.new and fault.breaks for fault in FAULTS)


def test_no_fault_is_planted_twice() -> None:
    assert len({(fault.symbol, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)


def test_a_fault_goes_where_its_symbol_is_whatever_the_file(tmp_path: Path) -> None:
    package = tmp_path / "mycorrizal" / "_swim"
    package.mkdir(parents=True)
    (package / "a.py").write_text("class A:\n    def f(self):\n        return 1\n\n\ndef f():\n    return 1\n")
    found = place(Fault("A.f", "return 1", "return 2", "x"), sources(tmp_path))
    assert found.path == Path("mycorrizal/_swim/a.py")
    assert found.source == "class A:\n    def f(self):\n        return 2\n\n\ndef f():\n    return 1\n"
    for fault in (Fault("A.g", "return 1", "", "x"), Fault("A.f", "return 3", "", "x"), Fault("A", "e", "g", "x")):
        with pytest.raises(DoesNotApply):
            place(fault, sources(tmp_path))
    (package / "b.py").write_text("def f():\n    return 1\n")
    with pytest.raises(DoesNotApply, match="2 such places"):
        place(Fault("f", "return 1", "return 2", "x"), sources(tmp_path))


def test_symbols_are_classes_functions_and_constants() -> None:
    source = "A = 1\n\n\n@decorated\ndef f():\n    return A\n\n\nclass B:\n    x: int = 2\n"
    spans = {name: [source[first:end] for first, end in found] for name, found in symbols(source).items()}
    assert spans["A"] == ["A = 1\n"]
    assert spans["f"] == ["@decorated\ndef f():\n    return A\n"]
    assert spans["B.x"] == ["    x: int = 2\n"]


def test_the_nearest_tests_are_asked_first() -> None:
    found = levels(Path("mycorrizal/_runtime/threads/handlers.py"), ROOT)
    assert found[0] == ["tests/_runtime/threads/test_handlers.py", "tests/_runtime/threads/test_handlers_ends.py"]
    assert "tests/_runtime/threads/test_futures.py" in found[1]
    assert "tests/_runtime/data" in found[2]
    assert all((ROOT / name).exists() for names in found for name in names)
