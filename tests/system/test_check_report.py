"""`syncd check --report`: one text file for a bug report, with nothing private in it."""

from __future__ import annotations

import json
import os
import random
import re
import stat
from pathlib import Path

import msgspec
import pytest

from syncd.sync.status_document import LastError, LastSync, SandboxName, State, Status
from tests.system.command import Finished
from tests.system.rig import KEY, SANDBOX, Rig

# Words that no source of syncd has, one for each input.
CANARY = re.compile(rb"(?i)zq[a-z]{3,}")
_VALUE = "sk_live_" + "".join(random.Random(3).choices("ABCDEFGHJKabcdefghjk23456789", k=24))
_AT = "2026-11-24T13:20:11Z"
_SIGNED = "https://storage.zqhost.example/zqbucket/o?X-Goog-Signature=" + "ab12" * 64

_SYSTEMCTL = """#!/bin/sh
case "$*" in
    *show-environment*) echo HOME=/home/zqmanager ;;
    *--version*) echo "systemd 257 (257.9-zqversion)" ;;
    *" show "*)
        echo LoadState=loaded; echo ActiveState=active; echo SubState=running; echo MainPID=4711
        echo "StatusText=uploading zqstatustext"
        echo "DropInPaths=/home/zqdrop/syncd.service.d/10-syncd.conf /home/zqdrop/syncd.service.d/zqdropin.conf"
        echo "Environment=ZQVAR=zqvalue" ;;
esac
"""
_LOGINCTL = "#!/bin/sh\necho no\n"


@pytest.fixture
def planted(rig: Rig) -> Rig:
    """A rig with something private in every input of a report."""
    for name in ("zqcode/zqsub", "zqcode/with blank zqname"):
        rig.write(f"{name}/zqfile.py", "zqcontent = 1\n")
    rig.write("the secret plan/status of all", "zqcontent\n")
    rig.write(b"zqodd-\xff\xfe-zqbytes".decode("utf-8", "surrogateescape"))
    rig.write("zqsecrets.py", f"x = '{_VALUE}'\n")
    rig.write(".env", "ZQPASSWORD=zqhush\n")
    rig.write("zqbig/zqlarge.bin", b"x" * (2 << 20))
    os.symlink("/etc/zqoutside", rig.workspace / "zqlink")
    rig.configure(
        {
            "workspace.ignore": ["zqpattern/", "*.zqext"],
            "workspace.allow_secrets": ["zqallowed/*.pem"],
        }
    )
    state = rig.state_folder
    state.mkdir(parents=True, mode=0o700)
    status = Status(
        running=True,
        pid=4711,
        state=State.HELD,
        workspace=f"{rig.workspace}/zqelsewhere",
        sandbox=SandboxName("zqsandbox", "https://zqapi.example", "us"),
        last_sync=LastSync("2026-11-24T13:20:11Z", 3, 5123456, "ab" * 32, 0.84),
        last_error=LastError("2026-11-24T13:21:00Z", "upload", f"refused 'zqerror file' at {_SIGNED}"),
        warnings=("'zqwarned/a b' holds a Stripe key in line 2 and is left out", "zqwarned2 cannot be watched"),
        mcp_servers={"filesystem": "https://zqmcp.example/zqtoken", "zqserver": "https://zqmcp.example/2"},
    )
    (state / "status.json").write_bytes(msgspec.json.encode(status))
    records = [
        _record(
            "initialized",
            sent_bytes=123456,
            sent=[{"at": _AT, "archive": "whole", "rows": [{"change": "added", "path": "zqhistory/a b.txt"}]}],
        ),
        _record("failed", error={"step": "upload", "message": f"the API answered 'zq history' with 503 {_SIGNED}"}),
        _record("zqoutcome", sandbox="zqsandbox", zqkey={"deep": ["zqdeep", 1.5]}),
    ]
    lines = [json.dumps(record).encode() for record in records]
    (state / "history.jsonl").write_bytes(b"\n".join([*lines, b"zqnojson {", b"\xff\xfezqbytes", b"[" * 5000, b""]))
    for path in state.iterdir():
        path.chmod(0o600)
    unit = rig.home / ".config/systemd/user/syncd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(
        "[Service]\nType=notify-reload\nExecStart=/home/zqhome/zqtools/syncd run\nEnvironment=ZQTOKEN=zqsecret\n"
        "# zqcomment by zqauthor\nNoNewPrivileges=yes\n"
    )
    rig.environ |= {
        "https_proxy": "http://zquser:zqpassword@zqproxy.example:3128",
        "NO_PROXY": "127.0.0.1",
        "SSL_CERT_FILE": str(rig.home / "zqcerts.pem"),
        "HOSTNAME": "zqhost",
        "USER": "zquser",
        "LOGNAME": "zqlogname",
        "XDG_RUNTIME_DIR": "/run/zqruntime",
    }
    return rig


def _record(outcome: str, **more: object) -> dict[str, object]:
    return {"id": f"zq{outcome}", "at": _AT, "why": "changes", "outcome": outcome, **more}


def _stub(rig: Rig, **programs: str) -> None:
    """Put programs of these names first in PATH, so that the machine's own are not used."""
    folder = rig.home / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o700)
    rig.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def _report(rig: Rig, *more: str, code: int = 0) -> tuple[Finished, str]:
    file = rig.home / "report.txt"
    done = rig.run("check", *more, "--report", str(file))
    assert done.code == code, done
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_bytes()
    assert not CANARY.findall(written)
    assert KEY.encode() not in written
    assert SANDBOX.encode() not in re.findall(rb"[a-z]+", written)
    text = written.decode()
    for private in (str(rig.home), os.uname().nodename, "ab12ab12", "abababab", "10.0.0.7", "secret plan", "plan"):
        assert private not in text, private
    assert all(line.isprintable() for line in text.split("\n"))
    return done, text


def test_nothing_private_is_in_it(planted: Rig) -> None:
    """Canaries planted in each input are not in the report; what a developer needs is."""
    _stub(planted, systemctl=_SYSTEMCTL, loginctl=_LOGINCTL)
    done, text = _report(planted)
    assert "read it before you pass it on" in done.out
    assert CANARY.search(done.out.encode())  # the screen does show the names
    for kept in (
        "== versions ==",
        "systemd       257",
        "https_proxy",
        "workspace.ignore                  2 texts",
        "sync.debounce_seconds             0.2",
        "secrets        warn",
        "state                stopped",
        "2026-11-24T13:21:00Z, step upload",
        "changes, initialized, 1 attempts, 123,456 bytes",
        "changes, failed, failed at upload",
        "changes, …",
        "lines that cannot be read  3",
        "LoadState       loaded",
        "files below 10 MiB",
    ):
        assert kept in text, f"{kept}\n{text}"
    assert planted.count("initialize") == planted.count("export-artifacts") == 0


def test_a_broken_configuration(planted: Rig) -> None:
    """With a broken configuration and no systemd there is a report too, with the reason and without names."""
    planted.config_file.write_text('workspace.path = "zqplace"\nzqsection = {}\n')
    planted.environ["PATH"] = str(planted.home)
    _, text = _report(planted, code=78)
    assert re.search(r"\nconfiguration +fail\n", text)
    assert "== configuration ==\nnone\n" in text
    planted.config_file.write_text('[workspace\npath = "zq')
    (planted.home / "report.txt").unlink()
    _, text = _report(planted, code=78)
    assert re.search(r"\nconfiguration +fail\n", text)


def test_no_state(rig: Rig) -> None:
    """A section without content says none."""
    rig.fill(3)
    _, text = _report(rig)
    assert re.search(r"== the last \d+ of the history ==\nnone\n", text)


def test_where_it_is_written(rig: Rig) -> None:
    """Never over a file, never in the workspace; by default under an unused name in the current directory."""
    rig.fill(3)
    (rig.home / "there.txt").write_text("mine")
    done = rig.run("check", "--report", "there.txt")
    assert done.code == 78
    assert "there.txt already exists" in done.err
    assert (rig.home / "there.txt").read_text() == "mine"
    done = rig.run("check", "--report", str(rig.workspace / "new.txt"))
    assert done.code == 78
    assert "would be synced" in done.err
    for _ in range(2):
        rig.ok("check", "--report")
    names = sorted(path.name for path in rig.home.glob("syncd-report-*"))
    assert re.fullmatch(r"syncd-report-\d{4}-\d\d-\d\d-2\.txt syncd-report-\d{4}-\d\d-\d\d\.txt", " ".join(names))
    assert not list(Path(rig.workspace).glob("*report*"))
