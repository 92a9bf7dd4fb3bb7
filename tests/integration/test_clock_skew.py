"""Clocks that disagree, and upload URLs that expire or are of another region."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.emulator.bucket import Key
from syncd.remote import http_client
from tests.clock import ScriptedClock
from tests.emulator import RequestRecord
from tests.integration.fault_checks import FRESH, JSON, OPS, raw, request_counts
from tests.integration.sync_rig import SANDBOX, Rig


@dataclass
class Shifted(ScriptedClock):
    """A clock whose wall time is off; `right` is the emulator's, which is right."""

    right: ScriptedClock | None = None
    off_s: float = 0.0

    def go_on(self, seconds: float) -> None:
        super().go_on(seconds)
        if self.right is not None:
            self.right.go_on(seconds)

    def suspend(self, seconds: float) -> None:
        self.boottime += seconds
        self.wall += seconds


@pytest.mark.parametrize("off_s", [-6 * 3600, -900, 900, 6 * 3600])
@pytest.mark.parametrize("dated", ["as it is", "without a date", "hours ahead", "hours behind"])
def test_wrong_clocks(recorded: Rig, off_s: float, dated: str) -> None:
    """A wrong clock on either side costs at most one more upload URL and one failed upload, and no wait."""
    right = recorded.clock
    recorded.clock = Shifted(right.monotonic, right.boottime, right.wall + off_s, right=right)
    recorded.client = http_client.HttpClient(Waiter(Interrupt(), recorded.clock))
    url = {"hours ahead": "skew 7200", "hours behind": "skew -7200"}.get(dated)
    if url:
        recorded.emulator.faults.script(f"upload-url: {url} always")
    if dated == "without a date":
        key = Key("us", SANDBOX, "workspace.tar.gz")
        signed = recorded.emulator.bucket.url("PUT", key, 1800)
        body = json.dumps({"upload_url": signed, "expires_in_minutes": 30})
        recorded.emulator.faults.script(f"upload-url: {raw('200 OK', JSON, body=body)}")
    for number in range(8):  # longer than the URL is valid
        recorded.write(content=f"text {number}")
        observer = recorded.sync()[1]
        assert set(observer.waits) <= {0.0}
        recorded.clock.go_on(300)
    assert recorded.asked().count("upload-url") <= 3
    assert recorded.asked().count("upload") <= 9
    assert recorded.arrived() == {"a.txt": "text 7"}


def test_an_upload_url_that_expires_during_the_upload(recorded: Rig) -> None:
    """A connection that is cut after the URL expired is not a network fault: a new URL is requested at once."""
    uploads: list[RequestRecord] = []

    def expire(entry: RequestRecord) -> None:
        if not uploads:
            recorded.clock.go_on(1801)
        uploads.append(entry)

    recorded.emulator.faults.on("upload", "mid-body", expire)
    recorded.emulator.faults.script("upload: reset mid-body")
    observer = recorded.sync()[1]
    assert [failure.action for failure in observer.failures] == [FRESH]
    assert "expired during the upload" in str(observer.failures[0])
    assert request_counts(recorded) == "2 2 1"


def test_another_region_needs_another_upload_url(rig: Rig) -> None:
    """The region is sent with upload URL and initialize, and the URL of one is not used for another."""
    rig.sync()
    rig.restart()
    rig.keys["sandbox"]["region"] = "asia"
    rig.send({"a.txt": "east"})
    assert rig.asked() == [*OPS, *OPS]
    asked = [entry.path for entry in rig.emulator.request_log if entry.op in ("upload-url", "initialize")]
    assert [path.rsplit("?", 1)[1] for path in asked] == ["region=us", "region=us", "region=asia", "region=asia"]
