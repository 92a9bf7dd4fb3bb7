"""`syncd check` on folders that can be created or not, and on a workspace that can be watched or not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from syncd.cli.check.api_check import route_findings
from syncd.cli.check.finding import Grade
from syncd.cli.check.workspace_check import check_workspace, folder_findings
from syncd.cli.init.questions import tell_shared_mounts
from syncd.core.clock import SystemClock
from syncd.scan.file_reader import ContentReader
from syncd.selection.secret_scanner import SecretSearch
from syncd.selection.selection import Selection, SelectionSettings

SELECTION = Selection(SelectionSettings())


def _grades(findings: object) -> list[tuple[str, Grade]]:
    return [(finding.subject, finding.grade) for finding in findings]  # type: ignore[attr-defined]


def test_folders_are_not_created(tmp_path: Path) -> None:
    """A missing folder passes if the nearest one above it can be written; none is created."""
    findings = folder_findings(str(tmp_path / "a/b/state"), str(tmp_path / "spool"), 0)
    assert _grades(findings) == [("state", Grade.PASS), ("spool", Grade.PASS)]
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_a_folders_place(tmp_path: Path) -> None:
    """It is a failure that names the file."""
    (tmp_path / "file").touch()
    state, spool = folder_findings(str(tmp_path / "file/state"), str(tmp_path / "file"), 0)
    assert (state.grade, spool.grade) == (Grade.FAIL, Grade.FAIL)
    assert f"{tmp_path / 'file'} is no folder" in state.what
    assert "XDG_CACHE_HOME" in spool.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It is a failure that names the folder."""
    tmp_path.chmod(0o500)
    state, _ = folder_findings(str(tmp_path / "state"), str(tmp_path / "spool"), 0)
    assert state.grade is Grade.FAIL


def test_the_workspace_is_watched_for_a_moment(tmp_path: Path) -> None:
    """The trial watches the directories of the snapshot, and leaves no thread and no descriptor behind."""
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/file").write_text("x")
    (tmp_path / "node_modules/much").mkdir(parents=True)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    seen = check_workspace(str(tmp_path), SELECTION, 2048, None)
    assert _grades(seen.findings) == [("directory", Grade.PASS), ("largest", Grade.NOTE), ("inotify", Grade.PASS)]
    assert seen.findings[2].what.startswith("3 of ")
    assert seen.content_bytes == 1
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)


def test_many_warnings_are_counted(tmp_path: Path) -> None:
    """Of a hundred links that lead outside the first few are named, and the rest counted."""
    (tmp_path / "file").touch()
    for number in range(100):
        (tmp_path / f"link{number:02}").symlink_to("/")
    warnings = [
        finding
        for finding in check_workspace(str(tmp_path), SELECTION, 1, None).findings
        if finding.grade is Grade.WARN
    ]
    assert len(warnings) == 6
    assert "95 more" in warnings[-1].what


@pytest.mark.parametrize(
    ("base_url", "environ", "expected"),
    [
        ("https://api.example", {}, ["are trusted"]),
        ("https://api.example", {"https_proxy": "http://me:secret@proxy:3128"}, ["through proxy:3128", "are trusted"]),
        ("https://api.example", {"https_proxy": "http://proxy:3128", "no_proxy": "example"}, ["are trusted"]),
        ("http://127.0.0.1:8000", {"http_proxy": "http://proxy:3128", "SSL_CERT_FILE": "/nowhere"}, []),
        ("https://api.example", {"SSL_CERT_FILE": "/nowhere"}, ["/nowhere, which does not exist", "are trusted"]),
        ("https://api.example", {"SSL_CERT_FILE": "/proc/self/maps"}, ["which holds no certificate", "are trusted"]),
        ("https://api.example", {"CURL_CA_BUNDLE": "/a"}, ["$CURL_CA_BUNDLE is set, which", "are trusted"]),
        ("https://api.example", {"SSL_CERT_DIR": "/"}, ["/ are trusted"]),
    ],
)
def test_the_route_to_the_api(
    base_url: str, environ: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy and certificates are named if the environment has any, but never a proxy's password."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = [finding.what for finding in route_findings(base_url, os.environ)]
    assert len(found) == len(expected)
    assert all(words in what and "secret" not in what for words, what in zip(expected, found, strict=True))


def test_shared_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check warns of those that hold what is sent, and `init` tells of them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "node_modules").mkdir()
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("syncd.watch.mounts._LIST", str(mounts))
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"23 22 0:5 / {tmp_path}/data rw - nfs4 server:/ rw\n"
        f"24 22 0:6 / {tmp_path}/node_modules rw - vboxsf modules rw\n"
    )
    findings = check_workspace(str(tmp_path), SELECTION, 2048, None).findings
    (warning,) = [finding for finding in findings if finding.grade is Grade.WARN]
    assert warning.what.startswith("'data' is polled, as it is on a shared file system (nfs4)")
    tell_shared_mounts(str(tmp_path / "data/deep"))
    assert "the workspace is polled" in capsys.readouterr().err
    tell_shared_mounts(str(tmp_path / "src"))
    assert capsys.readouterr().err == ""


def test_a_folder_that_others_can_read(tmp_path: Path) -> None:
    """An existing folder that others can read is a warning; nothing is changed."""
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "spool").mkdir(mode=0o700)
    state, spool = folder_findings(str(tmp_path / "state"), str(tmp_path / "spool"), 0)
    assert (state.grade, state.remedy) == (Grade.WARN, f"chmod go-rwx {tmp_path / 'state'}")
    assert spool.grade is Grade.PASS


def test_large_paths_and_secrets(tmp_path: Path) -> None:
    """Large files and secrets are one finding each, with what to do; a secret is not among the large files."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/big").write_bytes(b"x" * (2 << 20))
    (tmp_path / "id.pem").write_bytes(b"x" * (1 << 20))
    (tmp_path / "notes").write_text("sk_live_" + "Ab3dE5fG7hJ9kA2bC4dE6fG8")
    reader = ContentReader(str(tmp_path), SystemClock(), search=SecretSearch())
    found = {
        finding.subject: finding
        for finding in check_workspace(str(tmp_path), SELECTION, 9, None, reader=reader).findings
    }
    assert [detail.split()[-1] for detail in found["largest"].details] == ["/data/big"]
    assert found["secrets"].grade is Grade.WARN
    assert found["secrets"].details == ("notes holds a Stripe key in line 1", "id.pem: named like *.pem")
