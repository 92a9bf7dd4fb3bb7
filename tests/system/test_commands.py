"""Commands that work through the daemon if one runs, and by themselves otherwise."""

from __future__ import annotations

import json
import signal

import pytest

from tests.system.rig import Rig


def test_a_second_instance_ends_with_75(rig: Rig) -> None:
    """One daemon a workspace: the second names the first and touches nothing, the first goes on."""
    rig.write("a")
    first = rig.up()
    second = rig.start()
    assert second.wait() == 75
    assert str(first.pid) in second.err
    assert rig.status()["pid"] == first.pid
    rig.write("b")
    rig.converged()


def test_a_push_is_refused_while_another_syncs(rig: Rig) -> None:
    """Of two pushes at once the second ends with 75, once it has waited for a daemon that might be starting."""
    rig.write("a")
    rig.faults("upload: delay 8")
    first = rig.background("push")
    rig.until(lambda: rig.count("upload"), "the first push's upload")
    assert rig.run("push").code == 75
    assert first.wait() == 0
    assert rig.count("upload") == 1


def test_flush_returns_when_the_sandbox_is_equal(rig: Rig) -> None:
    """Through the daemon: it does not wait for quiet, and when it returns the sandbox holds what was on disk."""
    rig.configure({"sync.debounce_seconds": 30, "sync.max_wait_seconds": 60})
    rig.fill(5)
    rig.up()
    for number in range(3):
        rig.write("a", f"content {number}")
        assert rig.ok("flush").out == ""
        assert (rig.sandbox.workspace / "a").read_text() == f"content {number}"


def test_flush_outlasts_a_network_failure(rig: Rig) -> None:
    """A failing network makes it wait, not fail, even longer than the retries of one sync."""
    rig.configure({"retry.give_up_after_seconds": 1})
    rig.write("a")
    rig.up()
    rig.faults("upload: 503 x10")
    rig.write("a", "changed")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "a").read_text() == "changed"


def test_flush_sees_a_change_made_during_a_sync(rig: Rig) -> None:
    """A flush called during an upload of an older snapshot waits for a sync that began after it."""
    rig.write("a", "old")
    rig.up()
    rig.faults("initialize: delay 1")
    rig.write("a", "newer")
    rig.until(lambda: rig.count("initialize") == 2, "the sync that is on its way")
    rig.write("a", "newest")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "a").read_text() == "newest"


def test_flush_alone_syncs(rig: Rig) -> None:
    """Without a daemon it syncs, and a second one has nothing to do."""
    rig.fill(5)
    rig.ok("flush")
    rig.converged()
    rig.ok("flush")
    assert rig.count("upload") == 1


@pytest.mark.parametrize("daemon", ["with a daemon", "alone"])
def test_flush_gives_up_in_time(rig: Rig, daemon: str) -> None:
    """After --timeout it exits with 75 and the reason, and the daemon goes on."""
    rig.write("a")
    if daemon == "with a daemon":
        rig.up()
        rig.write("a", "changed")
    rig.faults("upload: 503 always")
    flushed = rig.run("flush", "--timeout", "1.5")
    assert flushed.code == 75
    assert "503" in flushed.err
    assert flushed.seconds < 6
    rig.emulator.faults.clear()
    rig.ok("flush")
    rig.converged()


def test_push_goes_through_the_daemon(rig: Rig) -> None:
    """It is a sync of the daemon, reported as any; unchanged it has nothing to do, forced it is done again."""
    rig.configure({"sync.debounce_seconds": 30, "sync.max_wait_seconds": 60})
    rig.write("a")
    rig.up()
    rig.write("b")
    assert "synced 2 files" in rig.ok("push").out
    assert "nothing to do" in rig.ok("push").out
    forced = json.loads(rig.ok("push", "--force", "--json").out)
    assert forced["outcome"] == "initialized"
    assert rig.status()["syncs"] == rig.count("initialize") == 3
    assert forced["sync"] == rig.status()["last_sync"]


def test_push_alone_is_recorded(rig: Rig) -> None:
    """Its result is JSON on request, `status` shows it, and the next daemon uploads nothing."""
    rig.fill(5)
    pushed = json.loads(rig.ok("push", "--json").out)
    assert (pushed["outcome"], pushed["files"], pushed["sync"]["files"]) == ("initialized", 5, 5)
    status = rig.status()
    assert (status["running"], status["state"], status["pending"]) == (False, "stopped", False)
    assert status["last_sync"] == pushed["sync"]
    assert json.loads(rig.ok("push", "--json").out)["outcome"] == "unchanged"
    rig.start()
    rig.in_state("watching")
    rig.ok("flush")
    assert rig.count("upload") == 1
    assert rig.status()["last_sync"] == pushed["sync"]


def test_push_prints_its_result_and_its_progress_apart(rig: Rig) -> None:
    """The result goes to stdout, the progress to stderr, in plain lines without a terminal."""
    rig.fill(5)
    pushed = rig.ok("push")
    assert len(pushed.out.splitlines()) == 1
    assert "uploading" in pushed.err
    assert "\x1b" not in pushed.out + pushed.err


def test_a_push_that_is_stopped_leaves_nothing_half_done(rig: Rig) -> None:
    """Ctrl-C during an upload exits with 75 at once, and the next push sends it."""
    rig.write("a")
    rig.faults("upload: hang 60")
    pushing = rig.background("push")
    rig.until(lambda: rig.count("upload"), "its upload")
    assert pushing.stop(signal.SIGINT) == 75
    rig.ok("push")
    rig.converged()


def test_too_large_a_snapshot_is_refused_before_any_request(rig: Rig) -> None:
    """`push` ends with 78, `run` holds; both name the largest paths and the key; once smaller the daemon goes on."""
    rig.configure({"sync.max_snapshot_mib": 1})
    rig.write("big/movie.bin", b"\0" * 3_000_000)
    rig.write("small")
    pushed = rig.run("push")
    assert pushed.code == 78
    assert "big/movie.bin" in pushed.err
    assert "max_snapshot_mib" in pushed.err
    rig.start()
    status = rig.status_in("held")
    assert "big/movie.bin" in status["last_error"]["message"]
    assert rig.emulator.request_log.ops() == []
    (rig.workspace / "big/movie.bin").unlink()
    rig.converged()
    rig.in_state("watching")


def test_a_pause_holds_changes_and_a_resume_sends_them(rig: Rig) -> None:
    """Nothing is sent while paused, also after a restart; everything is after the resume."""
    rig.write("a")
    daemon = rig.up()
    rig.ok("pause")
    rig.in_state("paused")
    rig.write("b")
    assert rig.run("flush").code == 75
    rig.until(lambda: rig.status()["pending"], "the change to be noted")
    daemon.stop()
    rig.start()
    rig.in_state("paused")
    rig.write("c")
    assert rig.run("flush").code == 75
    assert rig.count("upload") == 1
    rig.ok("resume")
    rig.converged()
    rig.in_state("watching")


def test_a_pause_without_a_daemon_holds_the_next_one(rig: Rig) -> None:
    """The marker file is enough; `flush` respects it, alone too."""
    rig.write("a")
    rig.ok("pause")
    flushed = rig.run("flush")
    assert (flushed.code, flushed.err) == (75, "syncd: syncing is paused: run `syncd resume`\n")
    rig.start()
    rig.in_state("paused")
    assert rig.emulator.request_log.ops() == []
    rig.ok("resume")
    rig.converged()


def test_a_push_while_paused(rig: Rig) -> None:
    """The pause goes on."""
    rig.write("a")
    rig.up()
    rig.ok("pause")
    rig.write("b")
    rig.ok("push")
    rig.converged()
    rig.in_state("paused")
