"""Errors that a user can cure: one line, exit code 2, no traceback."""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")
RUNNING = {"corrector", "upstream", "checkpoint", "init"}
"""Fields that a configuration has where its command runs models."""
IGNORE_MEMORY = "--ignore-memory"
"""Flag of every command that runs models: start also where memory would not do by the estimate (`corrector.memory`)."""
CLOSED_PIPE = 128 + 13
"""Exit code of a program whose reader has gone, as the shell gives it for SIGPIPE."""


class UserError(ValueError):
    """A caller's mistake; the message says what was got, what is allowed and the cure, in one line."""


def run_cli(config: type[C], main: Callable[[C], Any], prog: str, default: Callable[[], C] | None = None) -> None:
    """Parse `config` (a frozen dataclass) from the command line with tyro and call `main(config)`.

    `default` makes the config that flags are laid over, where it is not the class's own defaults.
    A `UserError` becomes one line on stderr (one for all processes that torchrun started here) and exit code 2; Ctrl-C
    becomes exit code 130; a reader of stdout that went away (`| head`) becomes exit code 141 without a word; anything
    else is a fault of the lab and keeps its traceback.
    """
    import tyro

    try:
        start: dict[str, Any] = {"default": default()} if default else {}
        given = sys.argv[1:]
        about, models = config.__doc__ or "", not RUNNING.isdisjoint(getattr(config, "__dataclass_fields__", ()))
        if models:
            about = f"{about}\n\n{IGNORE_MEMORY}: start also where memory would not do, by the estimate."
            start["args"] = [flag for flag in given if flag != IGNORE_MEMORY]
        # Flushed here, since a closed pipe that is met at shutdown cannot be caught.
        try:
            parsed = tyro.cli(config, prog=f"python -m {prog}", description=about, **start)
            with _memory_ignored() if models and IGNORE_MEMORY in given else nullcontext():
                main(parsed)
        except SystemExit:  # of --help, which prints pages
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except UserError as error:
        line = f"{prog}: {' '.join(str(error).split())}"
        if not _said_by_another(line):
            print(line, file=sys.stderr)
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


def _said_by_another(line: str) -> bool:
    """Whether another of the processes that torchrun started here has said this very line.

    What differs between processes is said by each, and so is everything where that cannot be found out. The mark is a
    file named after the launcher, by number and start, and the line.
    """
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return False
    try:
        launcher = os.getppid()
        start = Path(f"/proc/{launcher}/stat").read_text().rpartition(")")[2].split()[19]
        name = hashlib.sha256(f"{launcher} {start} {line}".encode()).hexdigest()[:16]
        (Path(tempfile.gettempdir()) / f"corrector-lab-said-{name}").touch(exist_ok=False)
    except FileExistsError:
        return True
    except (OSError, IndexError):
        pass
    return False


def _memory_ignored() -> AbstractContextManager[None]:
    from corrector.memory import ignoring  # which loads torch, and figures need none

    return ignoring()


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
