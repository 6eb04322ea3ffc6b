"""Fields of a protobuf message, read strictly.

ONNX Runtime's protobuf merges a field that is given twice, and skips what it does not know. A check that did so in
another way would see another graph than ONNX Runtime runs. So a message is refused that has a field twice, of another
type, or of a number that its kind has not. No exporter writes such messages.
"""

from __future__ import annotations

from collections.abc import Mapping

Kinds = Mapping[int, str]
"""What a message may have, by the field's number: `n` a number, `m` a message or text, `f` a float; `N`, `M`, `F` and
`D` (of doubles) any number of them."""
Span = tuple[int, int]
"""Where a message or text begins, and where it ends."""

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_WIRE = {
    "n": (_VARINT,),
    "N": (_VARINT, _BYTES),  # packed, too
    "m": (_BYTES,),
    "M": (_BYTES,),
    "f": (_FOUR,),
    "F": (_FOUR, _BYTES),
    "D": (_EIGHT, _BYTES),
}
_FIXED = {_EIGHT: 8, _FOUR: 4}


class DamagedError(Exception):
    """The bytes are no such message; the text says why."""


class Message:
    """One message.

    Args:
        data: bytes that have it inside.
        span: where.
        kinds: of its fields.

    Raises:
        DamagedError: it is no such message.
    """

    __slots__ = ("_data", "_numbers", "_spans")

    def __init__(self, data: bytes, span: Span, kinds: Kinds) -> None:
        self._data = data
        self._numbers: dict[int, list[int]] = {}
        self._spans: dict[int, list[Span]] = {}
        at, end = span
        while at < end:
            tag, at = _varint(data, at, end)
            number, wire = tag >> 3, tag & 7
            kind = kinds.get(number, "")
            if wire not in _WIRE.get(kind, ()):
                raise DamagedError(f"field {number} of wire type {wire}")
            if kind in "nmf" and (number in self._numbers or number in self._spans):
                raise DamagedError(f"field {number} twice")
            if wire == _VARINT:
                value, at = _varint(data, at, end)
                self._numbers.setdefault(number, []).append(_signed(value))
                continue
            if wire == _BYTES:
                size, at = _varint(data, at, end)
            else:
                size = _FIXED[wire]
            if size > end - at:
                raise DamagedError(f"field {number} is cut short")
            self._spans.setdefault(number, []).append((at, at + size))
            at += size

    def has(self, number: int) -> bool:
        """Whether the field is there."""
        return number in self._numbers or number in self._spans

    def spans(self, number: int) -> list[Span]:
        """Where the field's messages or texts are."""
        return self._spans.get(number, [])

    def number(self, number: int) -> int:
        """Of 64 bits, with a sign; 0 where it is absent."""
        return self._numbers.get(number, [0])[0]

    def numbers(self, number: int) -> list[int]:
        """All, packed ones or not."""
        values = list(self._numbers.get(number, []))
        packed = self._spans.get(number, [])
        if packed and values:
            raise DamagedError(f"field {number} is packed and is not")
        for at, end in packed:
            while at < end:
                value, at = _varint(self._data, at, end)
                values.append(_signed(value))
        return values

    def text(self, number: int) -> str:
        """Plain ASCII, as all names are; empty where it is absent."""
        return next(iter(self.texts(number)), "")

    def texts(self, number: int) -> list[str]:
        """As `text`, all of them."""
        try:
            return [self._data[start:end].decode("ascii") for start, end in self._spans.get(number, [])]
        except UnicodeDecodeError:
            raise DamagedError(f"field {number} is no plain text") from None


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
        shift += 7
        if shift == 70:
            break
    raise DamagedError("a number that is none")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
