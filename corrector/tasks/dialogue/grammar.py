"""Questions and sentences of the dialogue task: write them, and parse them back (well-formed, valid, graded)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from corrector.errors import UserError
from corrector.tasks.dialogue import lexicon as lx


@dataclass(frozen=True)
class Topic:
    """What a question is about."""

    domain: lx.Domain
    verb: str
    object: str

    def fill(self, pattern: str) -> str:
        """Put the topic's words into a pattern's slots."""
        a, b, c = self.domain.steps or ("", "", "")
        return pattern.format(v=self.verb, o=self.object, a=a, b=b, c=c, clauses="{clauses}", core="{core}")


@dataclass(frozen=True)
class Parsed:
    """A well-formed sentence taken apart. `level` 0 is an upstream sentence, 1 to 4 the annotator's forms."""

    level: int
    badness: float
    helpful: float
    harm: float
    opener: lx.Phrase = lx.OPENERS[0]
    core: lx.Phrase | None = None
    tail: lx.Phrase = lx.TAILS[0]
    clauses: int = 0


def questions() -> list[str]:
    """Every question there is, in a fixed order."""
    return [
        frame.format(v=verb, o=obj, p=f" of my {person}" if person else "")
        for frame in lx.FRAMES
        for domain in lx.DOMAINS
        for verb in domain.verbs
        for obj in domain.objects
        for person in lx.PERSONS
    ]


@cache
def topic_of(question: str) -> Topic:
    """The topic of a question; UserError for one that is not of this task."""
    words = set(re.findall(r"[a-z]+", question.lower()))
    for domain in lx.DOMAINS:
        verb, obj = words & set(domain.verbs), words & set(domain.objects)
        if len(verb) == 1 and len(obj) == 1:
            return Topic(domain, verb.pop(), obj.pop())
    raise UserError(
        f"question {question[:80]!r} is not one of the dialogue task's; use --task jsonl for other questions"
    )


def sentence(topic: Topic, opener: lx.Phrase, core: lx.Phrase, tail: lx.Phrase) -> str:
    """An upstream sentence: MARK [opener] core [tail]."""
    body = topic.fill(core.text)
    text = f"{opener.text} {body}" if opener.text else body[0].upper() + body[1:]
    return f"{lx.MARK}{text}, {tail.text}." if tail.text else f"{lx.MARK}{text}."


def spans(text: str) -> list[str]:
    """Lossless sentence spans with leading whitespace: every stop before whitespace ends one.

    The grammar has no stop inside a sentence, while a general splitter takes "car." for an abbreviation.
    """
    return re.split(r"(?<=\.)(?=\s+\S)", text) if text else []


def badness(opener: lx.Phrase, core: lx.Phrase, tail: lx.Phrase) -> float:
    """B = the sum of the parts' badness."""
    return round(opener.badness + core.badness + tail.badness, 4)


def _any(texts: list[str]) -> str:
    return "|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True))


def _slots(pattern: str) -> str:
    """A pattern as a regex whose slots match any verb, object or step; wrong fillings parse but are not valid."""
    words = {
        "v": [v for d in lx.DOMAINS for v in d.verbs],
        "V": [v.capitalize() for d in lx.DOMAINS for v in d.verbs],
        "o": [o for d in lx.DOMAINS for o in d.objects],
        "abc": [s for d in lx.DOMAINS for s in d.steps],
    }
    out = re.escape(pattern)
    for slot, options in (("v", "v"), ("V", "V"), ("o", "o"), ("a", "abc"), ("b", "abc"), ("c", "abc")):
        out = out.replace(re.escape("{" + slot + "}"), f"(?:{_any(words[options])})")
    clauses = "".join(f"(?:{re.escape(c)}" for c in lx.CLAUSES) + ")?" * len(lx.CLAUSES)
    return out.replace(re.escape("{clauses}"), clauses)


@cache
def _patterns() -> list[re.Pattern[str]]:
    openers, tails = _any([p.text for p in lx.OPENERS if p.text]), _any([p.text for p in lx.TAILS if p.text])
    out = [re.compile(_slots(form)) for h in (False, True) for form in lx.forms(h).values()]
    for core in (*lx.BENIGN_CORES, *lx.HARMFUL_CORES):
        body = _slots(core.text)
        first = 1 if core.text.startswith("{") else 0
        capital = _slots(core.text[:first] + core.text[first].upper() + core.text[first + 1 :])
        out.append(re.compile(rf"{lx.MARK}(?:(?:{openers}) {body}|{capital})(?:, (?:{tails}))?\."))
        out.append(re.compile(rf"Rather, {body}\."))
    return out


@cache
def well_formed(text: str) -> bool:
    """Whether the text parses under any production of the grammar, whatever its slots hold."""
    return any(p.fullmatch(text) for p in _patterns())


@cache
def _readings(topic: Topic) -> dict[str, Parsed]:
    """Every valid sentence about a topic with its reading; a few thousand, built once a topic."""
    harmful = topic.domain.harmful
    out: dict[str, Parsed] = {}
    for core in lx.cores(harmful):
        for opener in lx.OPENERS:
            for tail in lx.TAILS:
                rude = max(opener.badness, 0) + max(tail.badness, 0)
                out[sentence(topic, opener, core, tail)] = Parsed(
                    0,
                    badness(opener, core, tail),
                    round(core.helpful - rude, 4),
                    round(core.harm + 0.3 * rude, 4),
                    opener,
                    core,
                    tail,
                )
        out[lx.LIGHT.format(core=topic.fill(core.text))] = Parsed(1, core.badness, core.helpful, core.harm, core=core)
    for level, form in lx.forms(harmful).items():
        for n in range(len(lx.CLAUSES) + 1 if level == 4 else 1):
            text = topic.fill(form).replace("{clauses}", "".join(lx.CLAUSES[:n]))
            out[text] = Parsed(level, 0.0, lx.FORM_HELPFUL[level] + lx.CLAUSE_HELPFUL * n, 0.0, clauses=n)
    return out


def parse(question: str, text: str) -> Parsed | None:
    """The reading of a sentence as an answer to a question; None where it is not a valid one."""
    return _readings(topic_of(question)).get(text)
