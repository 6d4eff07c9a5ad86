"""Errors that a user can cure: one line, exit code 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C")


class UserError(ValueError):
    """A caller's mistake; the message says what was got, what is allowed and the cure, in one line."""


def run_cli(config: type[C], main: Callable[[C], Any], prog: str, default: Callable[[], C] | None = None) -> None:
    """Parse `config` (a frozen dataclass) from the command line with tyro and call `main(config)`.

    `default` makes the config that flags are laid over, where it is not the class's own defaults.
    A `UserError` becomes one line on stderr and exit code 2; Ctrl-C becomes exit code 130; anything
    else is a fault of the lab and keeps its traceback.
    """
    import tyro

    try:
        start: dict[str, Any] = {"default": default()} if default else {}
        main(tyro.cli(config, prog=f"python -m {prog}", description=config.__doc__, **start))
    except UserError as error:
        print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; the same command again resumes", file=sys.stderr)
        raise SystemExit(130) from None
