"""A workspace without a configured sandbox: one is acquired, kept during its lifetime, and replaced by the next."""

from __future__ import annotations

import pytest

from syncd.core import durable_file
from syncd.core.errors import KeyRefused, SandboxRefused, TryLater
from syncd.core.settings import check_config
from syncd.daemon.build import access_of
from syncd.remote.failure import FailureAction, StepFailed
from syncd.sandbox.provider import SPAN_S, AcquiredSandboxStore, McpServers
from tests.emulator import RequestRecord, When
from tests.integration.sync_rig import RecordingObserver, Rig, files
from tests.recorded import full_disk


@pytest.fixture
def rig(bare: Rig) -> Rig:
    del bare.keys["sandbox"]["id"]
    bare.keys["sandbox"]["acquire"] = {"servers": ["filesystem", "git"], "ttl_seconds": 7200}
    bare.write("a", "1")
    return bare


def sandbox_id(rig: Rig) -> str:
    target = rig.cycle.target
    return target.sandbox_id if target else ""


def arrived(rig: Rig) -> dict[str, str]:
    """Return the files in the present sandbox."""
    return files(rig.emulator.sandbox(sandbox_id(rig)).workspace)


def test_acquiring_is_limited(rig: Rig) -> None:
    """If sandboxes end at once, it waits after a few, with a warning, and then goes on."""
    rig.emulator.faults.script("upload-url: 404 always", "get: 404 always")
    for number in range(6):
        failure, _ = rig.fail()
        assert failure.action is FailureAction.RETRY, failure
        assert rig.asked().count("acquire") <= 3, number
    failure, observer = rig.fail()
    assert "too many sandboxes were asked for recently" in str(failure)
    assert failure.action is FailureAction.RETRY
    assert observer.waits == []
    assert rig.asked().count("acquire") == 3
    rig.restart()
    rig.fail()
    assert rig.asked().count("acquire") == 3
    rig.emulator.faults.clear()
    rig.clock.go_on(SPAN_S)
    rig.sync()
    assert arrived(rig) == {"a": "1"}


def test_an_acquire_without_an_answer_counts(rig: Rig) -> None:
    """It counts over processes that each die before the answer."""
    rig.emulator.faults.script("acquire: lost always")
    for _ in range(6):
        with pytest.raises((KeyboardInterrupt, StepFailed)):
            rig.sync(observer=RecordingObserver(rig.clock, ends=KeyboardInterrupt()))
        rig.restart()
    assert rig.asked().count("acquire") == 3


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, SandboxRefused, "correct [sandbox.acquire] with"),
        (401, KeyRefused, "refused the key from the test"),
        (402, SandboxRefused, "pays for no further sandbox (402, Payment Required): check its plan, or release one"),
        (403, KeyRefused, "the key from the test may not acquire"),
        (404, SandboxRefused, "correct sandbox.base_url"),
        (422, SandboxRefused, "correct [sandbox.acquire] with"),
        (451, SandboxRefused, "correct [sandbox.acquire] with"),
    ],
)
def test_errors_that_a_person_must_fix(rig: Rig, status: int, kind: type, words: str) -> None:
    """A quota, a wrong name or a wrong key is reported as such each time, and does not count as acquired."""
    rig.emulator.faults.script(f"acquire: {status} always")
    for _ in range(10):
        failure, _ = rig.fail()
        assert type(failure.as_error()) is kind
        assert words in str(failure)
        rig.clock.go_on(1)
    assert rig.asked() == ["acquire"] * 10
    rig.emulator.faults.clear()
    rig.sync()


def test_what_cannot_be_counted_is_not_acquired(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk each new process would acquire one more, so none is requested."""
    monkeypatch.setattr(AcquiredSandboxStore, "save", full_disk)
    with pytest.raises(TryLater, match="No space left on device"):
        rig.sync()
    assert rig.asked() == []


def test_one_that_was_given_up_is_forgotten_also_with_a_full_disk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next process believes that it lives, until something changes here."""
    rig.sync()
    first = rig.cycle.target

    with monkeypatch.context() as patched:
        patched.setattr(durable_file, "_replace", full_disk)
        rig.cycle.provider.mark_lost(first)
    rig.restart()
    assert sandbox_id(rig) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "a\\u0000b", "a\\nb", "a" * 30_000])
def test_an_invalid_id(rig: Rig, name: str) -> None:
    """An invalid sandbox id is never used in a request; the next answer may be better."""
    rig.emulator.faults.script(f'acquire: json {{"local_sandbox_id": "{name}", "servers": []}}')
    _, observer = rig.sync()
    assert "is invalid" in str(observer.failures[0])
    assert arrived(rig) == {"a": "1"}


@pytest.mark.parametrize("op", ["acquire", "upload-url", "upload", "initialize"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_one_that_ends_during_a_sync(rig: Rig, op: str, when: When) -> None:
    """At whatever step it ends, the same sync or the next one fills another."""
    rig.sync()
    rig.clock.go_on(7200)
    rig.write("a", "2")
    once = iter([1])

    def end(_: RequestRecord) -> None:
        if next(once, 0):
            for sandbox in rig.emulator.sandboxes():
                sandbox.record.expires_at_s = 0.0

    rig.emulator.faults.on(op, when, end)
    rig.sync()
    rig.emulator.faults.clear()
    rig.send({"b": "3"})
    assert arrived(rig) == {"a": "2", "b": "3"}
    assert rig.asked().count("acquire") <= 3


@pytest.mark.parametrize("get", ["", "get: 503", "get: reset"])
@pytest.mark.parametrize("op", ["upload-url", "initialize", "execution-upload-url"])
def test_one_that_lives_is_not_left_for_a_404(rig: Rig, op: str, get: str) -> None:
    """That it is gone counts once the request for the sandbox says so too; until then it is tried again."""
    rig.use_defaults()
    rig.sync()
    first = sandbox_id(rig)
    agent = rig.emulator.sandbox(first).workspace / "agent"
    agent.write_text("the agent's")
    rig.clock.go_on(3600)  # the upload URL has expired
    rig.emulator.faults.script(f"{op}: 404", *filter(None, [get]))
    rig.write("a", "2")
    if op != "execution-upload-url":
        failure, _ = rig.fail()
        assert (failure.action in (FailureAction.RETRY, FailureAction.OFFLINE), failure.step) == (True, op)
    rig.sync()
    assert (sandbox_id(rig), arrived(rig)) == (first, {"a": "2", "agent": "the agent's"})
    assert rig.asked().count("acquire") == 1
    assert rig.cycle.warnings == []


@pytest.mark.parametrize(("status", "kind"), [(401, KeyRefused), (422, SandboxRefused)])
def test_one_that_refuses_is_not_gone(rig: Rig, status: int, kind: type) -> None:
    """The refusal is told as it is, and nobody asks if the sandbox is there."""
    rig.sync()
    first = sandbox_id(rig)
    rig.clock.go_on(3600)  # the upload URL has expired
    rig.emulator.faults.script(f"upload-url: {status} always")
    rig.write("a", "2")
    failure, _ = rig.fail()
    assert (type(failure.as_error()), sandbox_id(rig)) == (kind, first)
    assert "get" not in rig.asked()


def test_one_that_is_gone_is_named(rig: Rig) -> None:
    """Until the next start."""
    rig.sync()
    first = sandbox_id(rig)
    rig.emulator.sandbox(first).record.expires_at_s = 0.0
    rig.clock.go_on(3600)
    rig.send({"a": "2"})
    (warning,) = rig.cycle.warnings
    assert warning.key == f"left:{first}"
    rig.send({"a": "3"})
    assert list(rig.warnings) == [f"left:{first}"]
    rig.restart()
    assert rig.cycle.warnings == []


def test_the_servers_of_a_named_sandbox(bare: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """They are asked for after each sync until the API answers."""
    bare.write("a", "1")
    bare.set(id=bare.emulator.create_sandbox("other", ["terminal"]).id)
    bare.sync()
    config, target = check_config(bare.keys), bare.cycle.target
    assert target is not None
    servers = McpServers(access_of(config, bare.environ, bare.key, bare.client).api)
    bare.emulator.faults.script("get: 500 x1")
    assert [[*servers.of(target, None)] for _ in range(3)] == [[], ["terminal"], ["terminal"]]
    assert (bare.asked().count("get"), "the next sync asks again" in caplog.text) == (2, True)
