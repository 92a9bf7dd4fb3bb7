"""A finding of `syncd check`, with its grade; the exit code and the summary of all findings."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

from syncd.core.errors import ExitCode, SyncdError
from syncd.core.formatting import counted


class Grade(Enum):
    """The word that a finding is shown with, and the exit code that it causes."""

    PASS = ("pass", ExitCode.DONE)
    NOTE = ("note", ExitCode.DONE)  # neither good nor bad
    WARN = ("warn", ExitCode.DONE)  # syncing works, but not as well as it could
    FAIL_FOR_NOW = ("fail", ExitCode.TRY_LATER)
    FAIL = ("fail", ExitCode.NEEDS_PERSON)

    def __init__(self, word: str, exit_code: ExitCode) -> None:
        self.word = word
        self.exit_code = exit_code


class Finding(Struct, frozen=True):
    """One line about `subject`: `what` was found, and `remedy`, what to do about it (may be empty).

    `details` are the first few of the things that `what` counts, a line each.
    """

    subject: str
    grade: Grade
    what: str
    remedy: str = ""
    details: tuple[str, ...] = ()


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """0 if nothing failed, 75 if every failure may end by itself, else 78."""
    return max((finding.grade.exit_code for finding in findings), default=ExitCode.DONE)


def summary(findings: Iterable[Finding]) -> str:
    """The number of findings of each grade, in one line."""
    words = [finding.grade.word for finding in findings]
    failed, warnings, passed = words.count("fail"), words.count("warn"), words.count("pass")
    parts = [f"{failed} failed"] if failed else []
    parts += [counted(warnings, "warning")] if warnings else []
    return ", ".join([*parts, f"{passed} passed"]) if parts else f"all checks passed ({passed})"


def failed(subject: str, failure: SyncdError) -> Finding:
    """The finding about an error, which may end by itself or not."""
    grade = Grade.FAIL if failure.exit_code == ExitCode.NEEDS_PERSON else Grade.FAIL_FOR_NOW
    return Finding(subject, grade, failure.message, failure.hint)
