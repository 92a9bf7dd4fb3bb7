"""The command `syncd emulator`: its output, its log, its end."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "syncd", "emulator"]


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the first lines that it prints."""
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            shown = ""
            while "syncd init" not in shown:
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                shown += line
            yield process, shown
        finally:
            process.kill()


def named(shown: str) -> dict[str, str]:
    """The options of the `syncd init` that it prints."""
    words = shlex.split(shown[shown.index("syncd init") :])[2:]
    return dict(zip(words[::2], words[1::2], strict=True))


def refused(*options: str) -> tuple[int, str]:
    """Return the exit code and the only line of stderr."""
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """The printed address and command work; the key and signed URLs are in no output; a signal ends it with 0."""
    with running("--data", str(tmp_path / "data")) as (process, shown):
        config = named(shown)
        assert config["--id"] == "box"
        key = Path(config["--api-key-file"]).read_text().strip()
        assert f"workspace  {tmp_path / 'data'}" in shown
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=config["--base-url"], headers=headers, timeout=60) as client:
            assert client.get("/local-sandbox/box").status_code == 200
            url = client.post("/local-sandbox/box/upload-url").json()["upload_url"]
        sent = httpx.put(url, content=b"x", headers={"Content-Type": "application/gzip"}, timeout=60)
        assert sent.status_code == 200
        process.send_signal(number)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    # A line is written after its answer is sent, so a request to the other port may be logged first.
    assert sorted(line.split()[0] for line in log.splitlines()) == ["get", "upload", "upload-url"]
    assert key not in shown + log
    assert "Goog" not in log


def test_a_port_or_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A port or folder in use may be free later: 75. A folder that cannot be used: 78. One line each."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refused("--data", str(tmp_path / "a"), "--port", str(port))
    assert (code, f"port {port}" in line) == (75, True)
    with running("--data", str(tmp_path / "b")):
        code, line = refused("--data", str(tmp_path / "b"))
    assert (code, "another emulator" in line) == (75, True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").touch()
    for folder in (tmp_path / "c", tmp_path / "c" / "mine.txt", Path("/proc/none")):
        code, line = refused("--data", str(folder))
        assert (code, str(folder) in line) == (78, True)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"mine.txt"}


def test_a_key_of_ones_own(tmp_path: Path) -> None:
    """It is read from a file, so that it is no argument, which anyone on the machine can read."""
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text("a-key-of-ones-own-0123\n")
    with running("--data", str(tmp_path / "data"), "--api-key-file", str(file)) as (process, shown):
        assert "key-of-ones-own" not in Path(f"/proc/{process.pid}/cmdline").read_text()
        url = f"{named(shown)['--base-url']}/local-sandbox"
        assert httpx.get(url, headers={"Authorization": "Bearer a-key-of-ones-own-0123"}).status_code == 200
    for content, mode, reason in (("two words", 0o600, "has blanks"), ("a-key", 0o644, "can be read by others")):
        file.write_text(content)
        file.chmod(mode)
        code, line = refused("--data", str(tmp_path / "other"), "--api-key-file", str(file))
        assert (code, reason in line) == (78, True)


def test_an_invalid_value(tmp_path: Path) -> None:
    """Wrong usage is 2, with the reason: a file that is not there, a key itself."""
    for options, reason in (
        (("--api-key-file", str(tmp_path / "none")), "does not exist"),
        (("--api-key", "key"), "no such option"),
    ):
        command = [*COMMAND, "--data", str(tmp_path / "data"), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
