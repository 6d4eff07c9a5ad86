"""Replies kept on disk, one file each, so that what was answered once is never asked, computed or paid for again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.records.canonical import canonical
from corrector.records.rowfiles import write_whole


class Kept:
    """A folder of replies, each under the sha256 of everything that was sent for it.

    Every reply is whole and on disk when `keep` returns, so a kill loses none; any number of threads may keep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, sent: Mapping[str, Any]) -> str:
        """64 hex digits of everything that was sent."""
        return hashlib.sha256(canonical(sent).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply of a key, or None; UserError for a file that is no JSON object."""
        file = self._file(key)
        if not file.is_file():
            return None
        try:
            reply = json.loads(file.read_text(encoding="utf-8"))["reply"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}); delete it, and it is asked again") from error
        return dict(reply)

    def keep(self, key: str, sent: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Keep a reply with what was sent for it."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, canonical({"sent": sent, "reply": reply}).encode())

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
