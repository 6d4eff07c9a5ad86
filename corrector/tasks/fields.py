"""Fields of a row, checked as they are taken: an error names file, line and field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corrector.errors import UserError


class Fields:
    """A row, or an object inside one; `path` is what stands before its field names in errors."""

    def __init__(self, row: Any, where: str, expected: Sequence[str] = (), path: str = "") -> None:
        if not isinstance(row, dict):
            what = f"field {path.rstrip('.')!r}" if path else type(row).__name__
            said = f"is {row!r:.60}; an object" if path else "is no row; an object"
            raise UserError(f"{where}: {what} {said} with {', '.join(expected) or 'fields'} is expected")
        self.row: dict[str, Any] = row
        self.where, self.expected, self.path = where, expected, path

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.row.get(name) is not None

    def text(self, name: str, empty: bool = False) -> str:
        """A text; one of nothing but white space only with `empty`."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        if not empty and not value.strip():
            raise UserError(f"{self.where}: field {self.path + name!r} is empty; drop the row or fill it in")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self._value(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "a list of texts")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        if not isinstance(value := self._value(name), bool):
            raise self.wrong(name, "true or false")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        """A whole number from low to high."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number in {low}..{high}")
        return value

    def inner(self, name: str, expected: Sequence[str] = ()) -> Fields:
        """An object."""
        return Fields(self._value(name), self.where, expected, f"{self.path}{name}.")

    def each(self, name: str, expected: Sequence[str] = ()) -> list[Fields]:
        """A list of objects."""
        if not isinstance(value := self._value(name), list):
            raise self.wrong(name, "a list of objects")
        return [Fields(item, self.where, expected, f"{self.path}{name}[{i}].") for i, item in enumerate(value)]

    def wrong(self, name: str, wanted: str) -> UserError:
        """The error of a field that is something else."""
        value = f"{self.row.get(name)!r:.60}"
        return UserError(f"{self.where}: field {self.path + name!r} is {value}; {wanted} is expected")

    def _value(self, name: str) -> Any:
        if name not in self.row:
            expected = f"; expected are {', '.join(self.expected)}" if self.expected else ""
            raise UserError(
                f"{self.where}: field {self.path + name!r} is missing; there are {', '.join(map(str, self.row))}"
                f"{expected}"
            )
        return self.row[name]
