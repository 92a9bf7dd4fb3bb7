"""The workflow and pre-commit run the checks; the changelog has the form that a release is made from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repo.sources import REPO

_WORKFLOW = REPO / ".github/workflows/checks.yml"
_PUBLISH = REPO / ".github/workflows/publish.yml"


def test_the_workflow_runs_the_checks_on_each_python() -> None:
    """It calls `.ci/run` on each version that pyproject.toml names, and `.ci/minimum` on the oldest."""
    jobs = _loaded(_WORKFLOW)["jobs"]
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    remedy = f"{_WORKFLOW}: end with .ci/run for each Python of pyproject.toml, and with .ci/minimum for the oldest"
    assert jobs["all"]["strategy"]["matrix"]["python"] == versions, remedy
    assert jobs["all"]["steps"][-1]["run"] == ".ci/run", remedy
    assert jobs["minimum"]["steps"][-1]["run"] == ".ci/minimum", remedy
    assert project["requires-python"] == f">={jobs['minimum']['steps'][1]['with']['python-version']}", remedy


def test_the_workflow_can_do_no_harm() -> None:
    """It reads, and that is all: no secret, no right to write, nothing that a foreign pull request could steer."""
    text = _WORKFLOW.read_text("utf-8")
    remedy = f"{_WORKFLOW}: take the right, or what a pull request steers, away"
    assert _loaded(_WORKFLOW)["permissions"] == {"contents": "read"}, remedy
    assert re.findall(r"secrets|pull_request_target|github\.event|github\.head_ref|write", text) == [], remedy


def test_a_version_is_published_without_a_key() -> None:
    """What the checks passed and `packaging/release` built is published by a job that can do nothing else."""
    workflow = _loaded(_PUBLISH)
    jobs = workflow["jobs"]
    remedy = f"{_PUBLISH}: check, build by packaging/release, then publish by the index's trust in this workflow"
    assert jobs["checks"]["uses"] == "./.github/workflows/checks.yml", remedy
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("checks", "build"), remedy
    assert "packaging/release dist" in [step.get("run") for step in jobs["build"]["steps"]], remedy
    assert workflow["permissions"] == {"contents": "read"}, remedy
    assert jobs["publish"]["permissions"] == {"id-token": "write"}, remedy
    assert re.findall(r"secrets|password|contents: write", _PUBLISH.read_text("utf-8")) == [], remedy


@pytest.mark.parametrize("file", [_WORKFLOW, _PUBLISH], ids=lambda file: file.name)
def test_foreign_code_is_pinned(file: Path) -> None:
    """An action is named by a commit, with its version beside it, and a checkout leaves no credentials behind."""
    used = re.findall(r"uses: (?!\./)(.+)", file.read_text("utf-8"))
    assert used, file
    for each in used:
        remedy = f"{file}: name the action by its commit, with its version as a comment"
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), f"{each}: {remedy}"
    steps = [step for job in _loaded(file)["jobs"].values() for step in job.get("steps", [])]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts), file


def test_pre_commit_runs_what_is_there() -> None:
    """Each hook is a program of this checkout, so it needs no network."""
    hooks = [
        (repo["repo"], hook) for repo in _loaded(REPO / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
    ]
    remedy = ".pre-commit-config.yaml: name an executable file of this checkout, as a local script"
    assert hooks, remedy
    for source, hook in hooks:
        assert (source, hook["language"]) == ("local", "script"), remedy
        assert os.access(REPO / hook["entry"], os.X_OK), remedy


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None])
def test_nothing_outlives_a_run(end: signal.Signals | None) -> None:
    """What the checks started ends with them, also what is in a session of its own and heeds no Ctrl-C."""
    lasting = "setsid sh -c 'trap \"\" INT TERM; echo started; exec sleep 600' & read _; exit 3"
    command = [sys.executable, REPO / ".ci/subreaper", "/bin/sh", "-c", lasting]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        assert run.stdin is not None
        if end:
            run.send_signal(end)
        else:
            run.stdin.close()
        run.stdout.read()  # to the end of its output, which whoever is left would hold open
        run.wait(60)
    assert run.returncode == (-end if end else 3)


def test_versions_are_dated_and_their_changes_grouped() -> None:
    """A version has the day of its release, the newest first; each change stands below a heading of its group."""
    text = (REPO / "CHANGELOG.md").read_text("utf-8")
    versions = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    days = []
    for version in versions:
        heading, _, changes = version.partition("\n")
        if heading != "Unreleased":
            days.append(date.fromisoformat(heading.partition(" - ")[2]))
        before, *groups = re.split(r"^### .+\n", changes, flags=re.MULTILINE)
        remedy = f"CHANGELOG.md, {heading}: put each change as a line `- …` below the `### ` heading of its group"
        assert "- " not in before, remedy
        assert [group for group in groups if not group.strip().startswith(("- ", "#### "))] == [], remedy
    assert days == sorted(days, reverse=True), "CHANGELOG.md: put the newest version first"


def _loaded(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return found
