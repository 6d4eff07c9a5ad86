"""Errors that a user can cure: one line, exit code 2, no traceback."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C")
CLOSED_PIPE = 128 + 13
"""Exit code of a program whose reader has gone, as the shell gives it for SIGPIPE."""


class UserError(ValueError):
    """A caller's mistake; the message says what was got, what is allowed and the cure, in one line."""


def run_cli(config: type[C], main: Callable[[C], Any], prog: str, default: Callable[[], C] | None = None) -> None:
    """Parse `config` (a frozen dataclass) from the command line with tyro and call `main(config)`.

    `default` makes the config that flags are laid over, where it is not the class's own defaults.
    A `UserError` becomes one line on stderr and exit code 2; Ctrl-C becomes exit code 130; a reader of stdout that
    went away (`| head`) becomes exit code 141 without a word; anything else is a fault of the lab and keeps its
    traceback.
    """
    import tyro

    try:
        start: dict[str, Any] = {"default": default()} if default else {}
        # Flushed here, since a closed pipe that is met at shutdown cannot be caught.
        try:
            main(tyro.cli(config, prog=f"python -m {prog}", description=config.__doc__, **start))
        except SystemExit:  # of --help, which prints pages
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except UserError as error:
        print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; the same command again resumes", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        raise SystemExit(CLOSED_PIPE) from None
    except subprocess.CalledProcessError as error:  # a sweep's figure, which prints the tables
        if error.returncode != CLOSED_PIPE:
            raise
        raise SystemExit(CLOSED_PIPE) from None


def _stdout_is_closed() -> bool:
    """Whether stdout is a pipe without a reader; what is still buffered then goes nowhere, without a word."""
    try:
        stdout = sys.stdout.fileno()
    except (OSError, ValueError):  # no file at all, as under a notebook
        return False
    poll = select.poll()
    poll.register(stdout, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True
