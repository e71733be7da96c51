"""Regular expressions of tag filters, in time that the text and the expression bound.

A filter comes from a peer and is written in Go's syntax (RE2). Python's ``re``
takes exponential time for some expressions; here all states are followed at
once, one character after the other. Not there: classes by Unicode property
(``\\pL``); an expression that has them matches nothing, as in Serf one that is
wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..exceptions import ConfigError

__all__ = ["Pattern"]

MAX_PROGRAM = 2500
"""Steps of an expression, more than a text of 1 KiB has; ``{n,m}`` writes out what it repeats."""
MAX_REPEAT = 1000
"""As in Go."""
MAX_DEPTH = 50
"""Groups in groups."""

_Ranges = tuple[tuple[int, int], ...]
_LAST = 0x10FFFF
_DIGIT: _Ranges = ((48, 57),)
_WORD: _Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: _Ranges = ((9, 10), (12, 13), (32, 32))
_ESCAPED_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_NAMED: dict[str, _Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)), "alpha": ((65, 90), (97, 122)), "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)), "cntrl": ((0, 31), (127, 127)), "digit": _DIGIT, "graph": ((33, 126),),
    "lower": ((97, 122),), "print": ((32, 126),), "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)), "upper": ((65, 90),), "word": _WORD, "xdigit": ((48, 57), (65, 70), (97, 102)),
}  # fmt: skip
_CONTROL = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


def _others(ranges: _Ranges) -> _Ranges:
    """Return all characters that are in none of `ranges`."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if start < low:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False  # i
    lines: bool = False  # m
    dot_all: bool = False  # s


@dataclass(slots=True)
class _Step:
    """One step: take a character of `ranges`, hold at a place, or go on at each of `then` without taking any."""

    ranges: _Ranges | None = None
    fold: bool = False
    at: str = ""  # a condition on the place: b B, ^ $ of lines, A z of the text
    then: tuple[int, ...] = ()

    def takes(self, char: str) -> bool:
        if self.ranges is None:
            return False
        forms = char + char.lower() + char.upper() if self.fold else char
        return any(low <= ord(form) <= high for form in forms for low, high in self.ranges)


class Pattern:
    """One expression, compiled.

    Raises:
        ConfigError: it is wrong, too long, or has what is not understood.
    """

    def __init__(self, expression: str) -> None:
        self._text = expression
        self._at = 0
        self._steps: list[_Step] = []
        self._depth = 0
        self._flags = _Flags()
        start = self._either()
        if self._at < len(expression):
            raise self._wrong("a ) too many")
        self._first = start[0]
        self._steps[start[1]].then = (self._add(_Step()),)
        self._last = len(self._steps) - 1

    @property
    def size(self) -> int:
        """How many steps it has; ``search`` takes at most as many for each character."""
        return len(self._steps)

    def search(self, text: str) -> bool:
        """Return whether it matches anywhere in `text`."""
        states: set[int] = set()
        for index in range(len(text) + 1):
            states = self._closure({*states, self._first}, text, index)
            if self._last in states:
                return True
            if index < len(text):
                steps = [self._steps[number] for number in states]
                states = {step.then[0] for step in steps if step.takes(text[index])}
        return False

    def _closure(self, states: set[int], text: str, index: int) -> set[int]:
        waiting, found = list(states), set(states)
        while waiting:
            step = self._steps[waiting.pop()]
            if step.ranges is not None or (step.at and not _holds(step.at, text, index)):
                continue
            for number in step.then:
                if number not in found:
                    found.add(number)
                    waiting.append(number)
        return found

    # -- parsing: each returns the numbers of the first and the last step of a part ------------------

    def _wrong(self, why: str) -> ConfigError:
        return ConfigError("tags", f"{self._text!a:.80} is no expression: {why}", hint="the syntax is Go's (RE2)")

    def _add(self, step: _Step) -> int:
        if len(self._steps) >= MAX_PROGRAM:
            raise self._wrong("it is too long")
        self._steps.append(step)
        return len(self._steps) - 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise self._wrong("it ends too early")
        self._at += 1
        return char

    def _accept(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _either(self) -> tuple[int, int]:
        flags = self._flags  # those that are set inside hold until the group ends
        branches = [self._sequence()]
        while self._accept("|"):
            branches.append(self._sequence())
        self._flags = flags
        if len(branches) == 1:
            return branches[0]
        end = self._add(_Step())
        for _, last in branches:
            self._steps[last].then = (end,)
        return self._add(_Step(then=tuple(first for first, _ in branches))), end

    def _sequence(self) -> tuple[int, int]:
        first = last = self._add(_Step())
        while self._peek() not in ("", "|", ")"):
            part = self._repeated()
            self._steps[last].then = (part[0],)
            last = part[1]
        return first, last

    def _repeated(self) -> tuple[int, int]:
        begin, flags = self._at, self._flags
        part = self._single()
        end = self._at
        bounds = self._bounds()
        if bounds is None:
            return part
        self._accept("?")  # which match is found is no matter here
        after = self._at
        if self._bounds() is not None:
            raise self._wrong("a repeat of a repeat")
        low, high = bounds
        first = last = self._add(_Step())
        for number in range(max(low, 1) if high is None else high):
            if number:  # written out once more
                self._at, self._flags = begin, flags
                part = self._single()
                assert self._at == end
            entry = self._add(_Step(then=(part[0],)))
            leave = self._add(_Step())
            self._steps[last].then = (entry,)
            self._steps[part[1]].then = (leave,)
            if number >= low:
                self._steps[entry].then = (part[0], leave)
            if high is None and number == max(low, 1) - 1:
                again = self._add(_Step(then=(part[0],)))
                self._steps[part[1]].then = (leave, again)
            last = leave
        self._at = after
        return first, last

    def _bounds(self) -> tuple[int, int | None] | None:
        for char, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._accept(char):
                return bounds
        if self._peek() != "{":
            return None
        inside, brace, _ = self._text[self._at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        if not brace or not _is_number(low) or not (high == "" or _is_number(high)):
            return None  # the brace stands for itself
        self._at += len(inside) + 2
        most = int(low) if not comma else int(high) if high else None
        if int(low) > MAX_REPEAT or (most is not None and not int(low) <= most <= MAX_REPEAT):
            raise self._wrong("a repeat of that size")
        return int(low), most

    def _single(self) -> tuple[int, int]:
        char = self._next()
        flags = self._flags
        if char == "(":
            return self._group()
        if char in "*+?":
            raise self._wrong("nothing to repeat")
        if char == "^":
            return self._place("^" if flags.lines else "A")
        if char == "$":
            return self._place("$" if flags.lines else "z")
        if char == ".":
            return self._taking(((0, _LAST),) if flags.dot_all else _others(((10, 10),)), fold=False)
        if char == "[":
            return self._taking(self._class(), flags.fold)
        if char != "\\":
            return self._taking(((ord(char), ord(char)),), flags.fold)
        if self._accept("Q"):
            return self._quoted()
        if self._peek() in ("b", "B", "A", "z"):
            return self._place(self._next())
        return self._taking(self._escape(), flags.fold)

    def _taking(self, ranges: _Ranges, fold: bool) -> tuple[int, int]:
        end = self._add(_Step())
        return self._add(_Step(ranges, fold, then=(end,))), end

    def _place(self, at: str) -> tuple[int, int]:
        number = self._add(_Step(at=at))
        return number, number

    def _quoted(self) -> tuple[int, int]:
        inside, _, _ = self._text[self._at :].partition("\\E")
        self._at += len(inside)
        self._accept("\\E")
        first = last = self._add(_Step())
        for char in inside:
            part = self._taking(((ord(char), ord(char)),), self._flags.fold)
            self._steps[last].then = (part[0],)
            last = part[1]
        return first, last

    def _group(self) -> tuple[int, int]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong("groups in groups in groups")
        before = self._flags
        if self._accept("?"):
            if self._accept("P<") or self._accept("<"):
                name, angle, _ = self._text[self._at :].partition(">")
                if not angle or not name.replace("_", "a").isalnum() or not name.isascii():
                    raise self._wrong("a bad name of a group")
                self._at += len(name) + 1
            elif self._set_flags():
                self._depth -= 1  # no group: they hold for what follows
                number = self._add(_Step())
                return number, number
        part = self._either()
        if not self._accept(")"):
            raise self._wrong("a ) is missing")
        self._flags = before
        self._depth -= 1
        return part

    def _set_flags(self) -> bool:
        """Read flags up to ``)``, which is True, or up to ``:``, behind which a group goes on."""
        on, set_ = True, {"i": self._flags.fold, "m": self._flags.lines, "s": self._flags.dot_all}
        while (char := self._next()) != ")":
            if char == ":":
                break
            if char == "-" and on:
                on = False
            elif char in set_:
                set_[char] = on
            elif char != "U":
                raise self._wrong(f"(?{char}")
        self._flags = _Flags(set_["i"], set_["m"], set_["s"])
        return char == ")"

    def _escape(self) -> _Ranges:
        char = self._next()
        if char.lower() in _ESCAPED_CLASSES:
            ranges = _ESCAPED_CLASSES[char.lower()]
            return ranges if char.islower() else _others(ranges)
        if char in _CONTROL:
            code = _CONTROL[char]
        elif char == "x":
            if self._accept("{"):
                digits, _, _ = self._text[self._at :].partition("}")
                self._at += len(digits) + 1
            else:
                digits = self._next() + self._next()
            if not 0 < len(digits) <= 6 or any(d not in "0123456789abcdefABCDEF" for d in digits):
                raise self._wrong("\\x without a number")
            code = int(digits, 16)
        elif not char.isalnum() or not char.isascii():
            code = ord(char)
        else:
            raise self._wrong(f"\\{char} is not understood")
        return ((code, code),)

    def _class(self) -> _Ranges:
        negated = self._accept("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            if self._accept("[:"):
                name, _, _ = self._text[self._at :].partition(":]")
                ranges = _NAMED.get(name.removeprefix("^"))
                if ranges is None:
                    raise self._wrong("an unknown class")
                self._at += len(name) + 2
                found += _others(ranges) if name.startswith("^") else ranges
                continue
            ranges = self._in_class()
            if len(ranges) == 1 and ranges[0][0] == ranges[0][1] and self._range_follows():
                self._at += 1
                end = self._in_class()
                if len(end) != 1 or end[0][0] != end[0][1] or end[0][0] < ranges[0][0]:
                    raise self._wrong("a range that is none")
                ranges = ((ranges[0][0], end[0][0]),)
            found += ranges
        self._at += 1
        return _others(tuple(found)) if negated else tuple(found)

    def _range_follows(self) -> bool:
        return self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]")

    def _in_class(self) -> _Ranges:
        char = self._next()
        return self._escape() if char == "\\" else ((ord(char), ord(char)),)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _holds(at: str, text: str, index: int) -> bool:
    if at == "A":
        return index == 0
    if at == "z":
        return index == len(text)
    if at == "^":
        return index == 0 or text[index - 1] == "\n"
    if at == "$":
        return index == len(text) or text[index] == "\n"
    before = index > 0 and _is_word(text[index - 1])
    after = index < len(text) and _is_word(text[index])
    return (before != after) == (at == "b")


def _is_word(char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in _WORD)
