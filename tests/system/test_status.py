"""`syncd status` says what is true, of every state, of a dead process, and where nothing ever ran."""

from __future__ import annotations

import re

from rig import Rig

KEYS = [
    "version",
    "running",
    "pid",
    "state",
    "workspace",
    "sandbox",
    "pending",
    "syncs",
    "failures",
    "last_sync",
    "last_error",
    "retry_at",
    "upload_url_expires_at",
    "warnings",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_before_anything_ran(rig: Rig) -> None:
    """The document is whole, and makes no folder."""
    status = rig.status()
    assert [key for key in status if key in KEYS] == KEYS
    assert (status["running"], status["pid"], status["state"], status["last_sync"]) == (False, None, "stopped", None)
    assert not (rig.home / ".local").exists()


def test_of_a_watching_daemon(rig: Rig) -> None:
    """All keys, with the figures of the sync that was."""
    rig.fill(5)
    daemon = rig.up()
    status = rig.status()
    assert [key for key in status if key in KEYS] == KEYS
    assert (status["running"], status["pid"], status["state"]) == (True, daemon.pid, "watching")
    assert status["workspace"] == str(rig.workspace)
    assert status["sandbox"] == {"id": "box", "base_url": rig.emulator.base_url, "region": "us"}
    assert (status["syncs"], status["failures"], status["pending"], status["warnings"]) == (1, 0, False, [])
    assert status["last_sync"]["files"] == 5
    assert status["last_sync"]["archive_bytes"] == rig.archive().stat().st_size
    assert TIME.fullmatch(status["last_sync"]["finished_at"])
    assert TIME.fullmatch(status["upload_url_expires_at"])
    assert "watching" in rig.ok("status").out


def test_of_each_stage(rig: Rig) -> None:
    """Uploading and initializing are told while they last, with the change pending."""
    rig.write("a")
    rig.faults("upload: delay 1", "initialize: delay 1")
    rig.start()
    assert rig.in_state("uploading")["pending"] is True
    rig.until(lambda: rig.status()["state"] == "initializing", "initializing")
    assert rig.status()["running"] is True
    assert rig.in_state("watching")["pending"] is False


def test_of_a_retrying_daemon(rig: Rig) -> None:
    """What failed, at which step, how often, and when it is tried next."""
    rig.configure({"retry.first_delay_seconds": 20, "retry.max_delay_seconds": 20})
    rig.write("a")
    rig.faults("upload: 503")
    rig.start()
    status = rig.in_state("retrying")
    assert (status["last_error"]["step"], status["failures"], status["pending"]) == ("upload", 1, True)
    assert "503" in status["last_error"]["message"]
    assert TIME.fullmatch(status["retry_at"])
    assert TIME.fullmatch(status["last_error"]["at"])


def test_of_a_killed_daemon(rig: Rig) -> None:
    """No status outlives its process: stopped, no pid, no plans; what it did last stays told."""
    rig.configure({"retry.first_delay_seconds": 20, "retry.max_delay_seconds": 20})
    rig.write("a")
    rig.up()
    rig.faults("upload: 503")
    rig.write("a", "changed")
    before = rig.in_state("retrying")
    rig.kill()
    status = rig.status()
    assert (status["running"], status["pid"], status["state"], status["retry_at"]) == (False, None, "stopped", None)
    assert status["last_sync"] == before["last_sync"]
    assert status["pending"] is True


def test_watch_shows_each_change(rig: Rig) -> None:
    """`--watch --json` is one document a line, as things happen, until it is interrupted."""
    rig.write("a")
    rig.up()
    watching = rig.background("status", "--watch", "--json")
    rig.until(lambda: '"watching"' in watching.out, "the first line")
    rig.daemons[0].stop()
    rig.until(lambda: '"stopped"' in watching.out, "the end of the daemon")
