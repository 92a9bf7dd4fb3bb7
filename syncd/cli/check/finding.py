"""What `syncd check` finds about one thing, and what its findings mean together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

_DONE = 0
_MAY_PASS = 75
_NEEDS_PERSON = 78


class Grade(Enum):
    """How a finding is shown, and the exit code that it asks for."""

    PASS = ("pass", _DONE)
    NOTE = ("note", _DONE)  # neither good nor bad: worth knowing
    WARN = ("warn", _DONE)  # syncing works, but not as well as it could
    FAIL_FOR_NOW = ("fail", _MAY_PASS)
    FAIL = ("fail", _NEEDS_PERSON)

    def __init__(self, word: str, exit_code: int) -> None:
        self.word = word
        self.exit_code = exit_code


@dataclass(frozen=True)
class Finding:
    """`what` was found about `subject`, one line; `remedy` is what to do about it, where something is to be done.

    `details` are the first few things that `what` counts, a line each.
    """

    subject: str
    grade: Grade
    what: str
    remedy: str = ""
    details: tuple[str, ...] = ()


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if nothing failed, 75 if all that failed may pass by itself, else 78."""
    return max((finding.grade.exit_code for finding in findings), default=_DONE)


def summary(findings: Iterable[Finding]) -> str:
    """All of them in one line."""
    words = [finding.grade.word for finding in findings]
    fine = words.count("pass")
    counts = {"failed": words.count("fail"), "to look at": words.count("warn")}
    failures = [f"{number} {word}" for word, number in counts.items() if number]
    return ", ".join([*failures, f"{fine} well"]) if failures else f"all is well ({fine} checked)"
