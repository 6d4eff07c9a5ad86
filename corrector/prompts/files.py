"""A user's own template from a file: fields `corrector` and `upstream`, and optionally `turn`, `system` and others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from corrector.errors import UserError
from corrector.loading.fieldfiles import ENDINGS, read_fields
from corrector.prompts.templates import FIELDS, Template, parts
from corrector.records.canonical import canonical

KINDS = {"corrector": str, "upstream": str, "correction_prefix": str, "turn": str, "system": str}


@dataclass(frozen=True)
class FileTemplate:
    """A template without its turn, the turn's name ("" without one) and the turn's system prompt ("": the default)."""

    template: Template
    turn: str = ""
    system: str = ""


def is_file_name(name: str) -> bool:
    """Whether a template's name is that of a file."""
    return name.endswith(ENDINGS)


def read_template(path: str) -> FileTemplate:
    """A template from a .json or .toml file; its name is the file's and 8 hex digits of the fields.

    Raises UserError, with file and field, unless `corrector` holds {question}, {prefix} and {last} once each, and
    `upstream` {question} once and {prefix} at its end.
    """
    file = Path(path).expanduser()
    fields = read_fields(file, KINDS, ("corrector", "upstream"))
    _check(file, "corrector", fields["corrector"], FIELDS)
    _check(file, "upstream", fields["upstream"], FIELDS[:2])
    if not fields["upstream"].endswith("{prefix}"):
        raise UserError(f"{file}: field 'upstream' must end with {{prefix}}, behind which the upstream writes on")
    digest = hashlib.sha256(canonical(fields).encode()).hexdigest()[:8]
    made = Template(
        f"{file.stem}-{digest}", fields["corrector"], fields["upstream"], fields.get("correction_prefix", "")
    )
    return FileTemplate(made, fields.get("turn", ""), fields.get("system", ""))


def _check(file: Path, field: str, pattern: str, needed: tuple[str, ...]) -> None:
    listed = ", ".join(f"{{{name}}}" for name in needed)
    try:
        names = [name for _, name, _ in parts(pattern) if name]
    except ValueError as error:
        raise UserError(
            f"{file}: field {field!r} has a brace fault ({error}); write {{{{ for a literal brace"
        ) from error
    if sorted(names) != sorted(needed):
        got = ", ".join(f"{{{name}}}" for name in names) or "none"
        raise UserError(f"{file}: field {field!r} holds {got}; it must hold {listed} once each")
