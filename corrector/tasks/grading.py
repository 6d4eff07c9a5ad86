r"""Is an answer right?  Numbers as GSM8K writes them, LaTeX by its last \boxed{} and math-verify."""

from __future__ import annotations

import atexit
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from fractions import Fraction
from functools import lru_cache

DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
SIGNED = re.compile(rf"(?P<sign>(?<![\w)\].%])[-\u2212])?(?:\\?\$\s?)?(?P<sign2>(?<=\$)[-\u2212])?(?P<digits>{DIGITS})")
MARKED = re.compile(rf"####[ \t]*(?P<sign>[-\u2212])?[ \t]*(?:\\?\$[ \t]*)?(?P<sign2>[-\u2212])?(?P<digits>{DIGITS})")
PLAIN = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:/0*[1-9][0-9]*)?")
STARTUP_S = 120.0


def final_number(text: str) -> str | None:
    """The number an answer ends in, or None: `#### N` where there is one (the first, as GSM8K's own grader takes),
    else the last number of the text. Commas, `$` and `%` are dropped; a minus between digits ("48-24") is no sign.
    """
    match = MARKED.search(text)
    if match is None:
        *_, match = [None, *SIGNED.finditer(text)]
    if match is None:
        return None
    sign = "-" if match["sign"] or match["sign2"] else ""
    return sign + match["digits"].replace(",", "")


@lru_cache(1 << 16)
def number(text: str | None) -> Fraction | None:
    """Exact value of a written number or simple fraction ("$1,200", "12%" as 12, "-3/4"); None if it is none."""
    clean = (text or "").strip().replace("\u2212", "-")
    clean = re.sub(r"(?<=[0-9]),(?=[0-9]{3})|\\?[$%]\s?", "", clean)
    if len(clean) > 100 or not PLAIN.fullmatch(clean):
        return None
    over, _, under = clean.partition("/")
    return Fraction(over.rstrip(".")) / Fraction(under or "1")


def same_number(a: str | None, b: str | None) -> bool:
    """Whether both are numbers of equal value ("72.00" and "72")."""
    x, y = number(a), number(b)
    return x is not None and x == y


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...} or \fbox{...} whose braces close, or None."""
    for match in reversed(list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))):
        depth = 1
        for i in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0) if text[i - 1] != "\\" else 0
            if depth == 0:
                return text[match.end() : i].strip()
    return None


def grade(gold: str, answer: str, timeout_s: float = 10.0) -> bool | None:
    r"""Whether `answer` gives the same value as `gold` (a whole solution or its bare result).

    The last \boxed{} of each is cut out first, since several boxes in one string are graded wrong; equal text and
    numbers are settled here, the rest by math-verify (gold first: its comparison is not symmetric). Without a box
    only a numeric gold can be graded, by `final_number`. None: no answer was found; callers count it apart. An
    expression that math-verify cannot settle in `timeout_s` is False, with a warning.
    """
    want = last_boxed(gold)
    if want is None:
        want = (final_number(gold) if "####" in gold else None) or gold.strip()
    got = last_boxed(answer)
    if got is None:
        got = final_number(answer) if number(want) is not None else None
    if not got:
        return None
    if got == want or same_number(got, want):
        return True
    if number(got) is not None and number(want) is not None:
        return False
    return _VERIFIER.verify(want, got, timeout_s)


class _Verifier:
    """math-verify in a child process, the one kind of timeout that also stops sympy and works in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="grading")
        self._child: subprocess.Popen[str] | None = None

    def verify(self, gold: str, answer: str, timeout_s: float) -> bool:
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                command = [sys.executable, "-P", __file__]
                self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                self._read(self._child, STARTUP_S)
            child = self._child
            assert child.stdin is not None
            child.stdin.write(json.dumps([gold, answer]) + "\n")
            child.stdin.flush()
            try:
                return bool(json.loads(self._read(child, timeout_s)))
            except FutureTimeout:
                self.close()
                warnings.warn(f"math-verify gave up on {answer[:80]!r} after {timeout_s} s; graded wrong", stacklevel=3)
                return False

    def _read(self, child: subprocess.Popen[str], timeout_s: float) -> str:
        assert child.stdout is not None
        line = self._pool.submit(child.stdout.readline).result(timeout_s)
        if not line:
            raise RuntimeError(f"the math-verify process ended with code {child.wait()}")
        return line

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


_VERIFIER = _Verifier()
atexit.register(_VERIFIER.close)


def _serve() -> None:
    """The child: one [gold, answer] a line in, true or false a line out."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeout is off, as meant here
    print("ready", flush=True)
    for line in sys.stdin:
        gold, answer = (parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in json.loads(line))  # pyright: ignore
        print(json.dumps(bool(verify(gold, answer, timeout_seconds=None))), flush=True)


if __name__ == "__main__":
    _serve()
