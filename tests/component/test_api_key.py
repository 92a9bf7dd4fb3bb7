"""The API key: the order of its sources, the rights of its file, and that it is never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.core.api_key import CREDENTIAL, KEY_VARIABLE, NOT_LOADED, ApiKey, find_key, was_replaced
from syncd.core.errors import KeyRefused

KEY = "sk-5ecret"


def key_file(folder: Path, content: bytes = KEY.encode() + b"\n", mode: int = 0o600) -> Path:
    """Write a key file with these rights."""
    path = folder / "api-key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(environ: dict[str, str], path: Path | str) -> str:
    """Return the text of the error for this key."""
    with pytest.raises(KeyRefused) as caught:
        find_key(environ, str(path))
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    return str(caught.value)


def test_the_order(tmp_path: Path) -> None:
    """The service manager's credential comes first, then the environment, then the file."""
    path = key_file(tmp_path, b"from-file")
    (tmp_path / CREDENTIAL).write_bytes(b"from-credential")
    (tmp_path / CREDENTIAL).chmod(0o440)
    both = {"CREDENTIALS_DIRECTORY": str(tmp_path), "KLAVIS_API_KEY": "from-environment"}
    assert find_key(both, str(path)).reveal() == "from-credential"
    assert find_key({"KLAVIS_API_KEY": "from-environment"}, str(path)).reveal() == "from-environment"
    assert find_key({"KLAVIS_API_KEY": ""}, str(path)).reveal() == "from-file"
    (tmp_path / CREDENTIAL).chmod(0o600)
    (tmp_path / CREDENTIAL).write_text(NOT_LOADED)
    assert find_key(both, str(path)).reveal() == "from-environment"
    (tmp_path / CREDENTIAL).unlink()
    assert find_key(both, str(path)).reveal() == "from-environment"
    assert find_key({}, str(path)).source == str(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o660, 0o666])
def test_rights_of_others_are_refused(tmp_path: Path, mode: int) -> None:
    """A file that group or others may access is refused, with the command that corrects it."""
    message = refusal({}, key_file(tmp_path, mode=mode))
    assert f"mode {mode:04o}" in message
    assert "chmod 600" in message
    assert "sandbox.api_key_file" in message


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_own_rights_are_enough(tmp_path: Path, mode: int) -> None:
    """The user's own rights do not matter; of a link the target's count."""
    path = key_file(tmp_path, mode=mode)
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        assert find_key({}, str(name)) == ApiKey(KEY, "elsewhere")
    path.chmod(0o644)
    assert "can be read by others" in refusal({}, tmp_path / "link")


def test_the_rights_of_a_credential(tmp_path: Path) -> None:
    """The service manager's file too is refused if everybody may read or write it; its group may."""
    path = key_file(tmp_path).rename(tmp_path / CREDENTIAL)
    service = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    for mode in (0o400, 0o440, 0o600):
        path.chmod(mode)
        assert find_key(service, "none").reveal() == KEY
    for mode in (0o444, 0o404, 0o602):
        path.chmod(mode)
        assert f"mode {mode:04o}" in refusal(service, "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"sk-5ecret and more", "blanks"),
        (b"sk-5ecret\nsecond line", "blanks"),
        (b"sk-5ecret\x1b[2J", "characters that no key has"),
        (b"k" * 5000, "longer than any key"),
        (b"\xffsk-5ecret", "characters that no key has"),
        (b"\xef\xbb\xbfsk-5ecret", "characters that no key has"),
    ],
)
def test_malformed_keys(tmp_path: Path, content: bytes, message: str) -> None:
    """An empty or malformed key is refused before any request, and is not shown."""
    assert message in refusal({}, key_file(tmp_path, content))


@pytest.mark.parametrize("key", [f"{KEY}-0123456789", "0123456789abcdef0123456789abcdef", f"{KEY}{'x' * 300}"])
def test_a_key_in_the_place_of_its_path(tmp_path: Path, key: str) -> None:
    """A path whose name may be the key is not shown, unless there is such a file; other names are."""
    assert "not shown" in (message := refusal({}, tmp_path / key))
    assert key not in message
    assert "'klavis-production-key'" in refusal({}, "klavis-production-key")


def test_a_malformed_key_in_the_environment(tmp_path: Path) -> None:
    """A malformed key in the environment is refused; the file is not used instead."""
    assert "$KLAVIS_API_KEY" in refusal({"KLAVIS_API_KEY": " "}, key_file(tmp_path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and a FIFO are refused at once, without waiting for a writer."""
    assert "does not exist" in refusal({}, tmp_path / "none")
    (tmp_path / "folder").mkdir(mode=0o700)
    assert "not a regular file" in refusal({}, tmp_path / "folder")
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in refusal({}, tmp_path / "fifo")
    assert "cannot be read" in refusal({}, tmp_path / ("x" * 300))


def test_a_key_is_never_shown() -> None:
    """No `repr`, format or traceback shows the key."""
    key = ApiKey(KEY, "a file")
    for text in (repr(key), str(key), f"{key}", "%s" % (key,), repr([key])):  # noqa: UP031 - each way of formatting
        assert KEY not in text


def test_a_credential_that_is_older_than_its_file(tmp_path: Path) -> None:
    """A credential is outdated once the key's file changes; a key from another source never is."""
    (tmp_path / "before").mkdir()
    older = key_file(tmp_path / "before")
    path = key_file(tmp_path, b"from-file")
    (tmp_path / CREDENTIAL).write_bytes(b"from-file")
    (tmp_path / CREDENTIAL).chmod(0o440)
    service = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    key = find_key(service, str(path))
    assert not was_replaced(key, service, str(path))
    while path.stat().st_ctime_ns <= (tmp_path / CREDENTIAL).stat().st_ctime_ns:  # the kernel's clock has coarse ticks
        path.write_bytes(b"from-file")
    assert was_replaced(key, service, str(path))
    assert not was_replaced(key, service, str(tmp_path / "none"))
    assert older.stat().st_ctime_ns < path.stat().st_ctime_ns
    for from_elsewhere in (find_key({}, str(older)), find_key({KEY_VARIABLE: KEY}, str(path))):
        assert not was_replaced(from_elsewhere, service, str(path))
    assert not was_replaced(key, {}, str(path))
