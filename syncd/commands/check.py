"""`syncd check`: everything a sync needs, tried one after the other, each with what to do about it. Changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import click

from syncd.base.apikey import ApiKey, find_key
from syncd.base.config import Config
from syncd.base.errors import SyncdError
from syncd.base.folders import folders_for
from syncd.base.privacy import close_memory
from syncd.base.text import one_line, redacted
from syncd.commands.options import CLOCK, config_option, config_path, configured
from syncd.policy.finding import Finding, Grade, exit_code
from syncd.policy.status import State

_COLOURS = {
    Grade.PASS: "green",
    Grade.NOTE: "blue",
    Grade.WARN: "yellow",
    Grade.FAIL_FOR_NOW: "red",
    Grade.FAIL: "red",
}


@click.command("check")
@config_option
def command(config_file: str | None) -> int:
    """Try everything a sync needs, and say what to do about what fails. Nothing is sent or changed.

    Ends with 0 if nothing failed, 75 if only the network or a server did, else 78.
    """
    findings = []
    checkup = Checkup(config_file)
    for finding in checkup.findings():
        findings.append(finding)
        _show(finding, checkup.secret)
    code = exit_code(findings)
    words = [finding.grade.word for finding in findings]
    counted = {"failed": words.count("fail"), "to look at": words.count("warn")}
    click.echo(", ".join(f"{number} {word}" for word, number in counted.items() if number) or "all is well")
    return code


class Checkup:
    """The checks in the order in which one needs the other; one that failed ends only those that build on it."""

    def __init__(self, config_file: str | None) -> None:
        self._config_file = config_file
        self.secret = ""

    def findings(self) -> Iterator[Finding]:
        """One at a time, so that what is known is on the screen while the network is waited for."""
        from syncd.process.wiring import target_of  # noqa: PLC0415 - `check --help` needs none of it

        try:
            config = configured(self._config_file)
            target = target_of(config, os.environ)
        except SyncdError as failure:
            yield _failed("configuration", failure)
            return
        yield Finding("configuration", Grade.PASS, config_path(self._config_file))
        key = None
        close_memory()
        try:
            key = find_key(os.environ, config.sandbox.api_key_file)
            self.secret = key.reveal()
            yield Finding("key", Grade.PASS, _whereabouts(key))
        except SyncdError as failure:
            yield _failed("key", failure)
        yield from _at_home(config)
        from syncd.effects.contact import contact, way_findings  # noqa: PLC0415

        yield from way_findings(target.base_url, os.environ)
        if key is not None:
            yield from contact(target, key, CLOCK)
        else:
            yield Finding("api", Grade.NOTE, "not asked, as there is no key")


def _at_home(config: Config) -> Iterator[Finding]:
    from syncd.commands.status import status_of  # noqa: PLC0415
    from syncd.effects.git_config import personal_excludes  # noqa: PLC0415
    from syncd.effects.survey import folder_findings, survey  # noqa: PLC0415
    from syncd.process.wiring import places_of, reader_of, selection_of  # noqa: PLC0415

    status = status_of(config, folders_for(config.workspace.path, os.environ).state)
    surveyed = survey(
        config.workspace.path,
        selection_of(config),
        config.sync.max_snapshot_mib,
        status.pid,
        reader=reader_of(config, CLOCK, os.environ),
        personal_excludes=personal_excludes(os.environ),
    )
    yield from surveyed.findings
    try:
        places = places_of(config, os.environ)
        yield from folder_findings(places.state, places.spool, surveyed.content_bytes)
    except SyncdError as failure:
        yield _failed("state", failure)
    if not status.running:
        yield Finding("daemon", Grade.NOTE, "not running; `syncd run` starts it")
        return
    what = f"running as process {status.pid}, {status.state}"
    troubles = [status.last_error.message] if status.last_error else []
    troubles += status.warnings
    if troubles or status.state is State.HELD:
        yield Finding("daemon", Grade.WARN, "; ".join([what, *troubles[:1]]), "see all with `syncd status`")
    else:
        yield Finding("daemon", Grade.PASS, what)


def _whereabouts(key: ApiKey) -> str:
    if key.source.startswith("$"):
        return f"found in {key.source}"
    return f"found in {key.source} (mode {stat.S_IMODE(os.stat(key.source).st_mode):04o})"


def _failed(subject: str, failure: SyncdError) -> Finding:
    grade = Grade.FAIL if failure.exit_code == Grade.FAIL.exit_code else Grade.FAIL_FOR_NOW
    return Finding(subject, grade, failure.message, failure.hint)


def _show(finding: Finding, secret: str) -> None:
    word = click.style(finding.grade.word, fg=_COLOURS[finding.grade], bold=True)
    click.echo(f"{word}  {finding.subject:13}  {_harmless(finding.what, secret)}")
    if finding.remedy:
        click.echo(f"{'':6}{'to do:':>13}  {_harmless(finding.remedy, secret)}")


def _harmless(text: str, secret: str) -> str:
    return one_line(redacted(text, secret), 1000)
