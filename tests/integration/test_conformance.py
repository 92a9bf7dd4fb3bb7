"""The probe of the live API, against the emulator: it finds what is there, tells no secret and leaves nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.emulator import Emulator
from tools.conformance.profile import Profile
from tools.conformance.rows import ROWS, Trial, found
from tools.conformance.service import Service

REPO = Path(__file__).parents[2]
PROFILES = REPO / "tools/conformance/profiles"
KEY = "key-of-the-probe"
DIFFER = {
    "as-assumed": [],
    "replaces": ["a second archive: takes its place"],
    "strict": [
        "a file where a folder is: is refused, and nothing is there",
        "two programs at once: run one after the other",
    ],
    "lenient": [
        "a file where a folder is: is refused, and what was before it is there",
        "a file where a link is, a link where a file is: are written through the link",
    ],
}
SUBJECTS = {each.partition(": ")[0] for each in itertools.chain(*DIFFER.values())}


def probe(emulator: Emulator, folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the probe, which writes its profile into this folder."""
    key = folder / "key"
    key.write_text(f"{KEY}\n")
    command = [sys.executable, "-m", "tools.conformance", "--api-key-file", str(key), "--base-url", emulator.base_url]
    command += ["--profile", str(folder / "profile.json"), "--pause", "1", "--long", "1", *more]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_emulator_is_as_assumed(tmp_path: Path) -> None:
    """All rows agree, in less than 300 requests; its sandbox is released, and nothing tells key, URL or id."""
    with Emulator(tmp_path / "cloud", api_key=KEY) as emulator:
        process = probe(emulator, tmp_path)
        printed, _ = process.communicate(timeout=120)
        assert (process.returncode, "!!" in printed) == (0, False), printed
        assert printed.count("ok  ") == len(ROWS) + 1
        assert emulator.sandboxes() == []
        requests = list(emulator.request_log)
        assert len(requests) < 300
        secrets = {KEY, "X-Goog", "http", *(each.sandbox for each in requests if len(each.sandbox or "") == 32)}
        written = (tmp_path / "profile.json").read_text()
        assert [secret for secret in secrets if secret and secret in printed + written] == []
        assert msgspec.json.decode(written, type=Profile).extraction == "tar"


@pytest.mark.parametrize("name", DIFFER)
def test_a_service_that_differs(tmp_path: Path, name: str) -> None:
    """The rows of what differs say so, and the profile is that of the service."""
    profile = msgspec.json.decode((PROFILES / f"{name}.json").read_bytes(), type=Profile)
    with Emulator(tmp_path / "cloud", api_key=KEY, profile=profile) as emulator:
        emulator.create_sandbox("box")
        with contextlib.closing(Service(emulator.base_url, KEY)) as service:
            service.sandbox = "box"
            it = Trial(service, 1.0, 0.0)
            rows = [row for row in ROWS if row.subject in SUBJECTS]
            told = [f"{row.subject}: {what}" for row in rows if (what := found(row, it)) != row.assumed]
    assert told == DIFFER[name]
    assert msgspec.structs.replace(Profile(**it.profile), initialize_s=profile.initialize_s) == profile


def test_what_is_found_tells_no_secret() -> None:
    """What a service says of an error may repeat what it was sent."""
    with contextlib.closing(Service("http://127.0.0.1:9", KEY)) as service:
        assert service.redacted(f"no {KEY} at https://bucket/x?X-Goog-Signature=1, sorry") == "no <key> at <URL> sorry"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_is_stopped_releases_its_sandbox(tmp_path: Path, number: signal.Signals) -> None:
    """A signal in the middle of a request ends it, and nothing is left."""
    with Emulator(tmp_path / "cloud", api_key=KEY) as emulator:
        process = probe(emulator, tmp_path)
        emulator.faults.on("initialize", "before", lambda _: os.kill(process.pid, number))
        printed, _ = process.communicate(timeout=60)
        assert (process.returncode, printed.splitlines()[-1]) == (1, "stopped"), printed
        assert emulator.sandboxes() == []
