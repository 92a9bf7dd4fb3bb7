"""`syncd check --report`: what a bug report needs, with nothing private in it."""

from __future__ import annotations

import os
import random
import re

import msgspec
import pytest

from syncd.sync.status_document import LastError, LastSync, SandboxName, State, Status
from tests.system.rig import KEY, SANDBOX, Rig

# Words that no source of syncd has, one for each input.
CANARY = re.compile(rb"(?i)zq[a-z]{3,}")
_VALUE = "sk_live_" + "".join(random.Random(3).choices("ABCDEFGHJKabcdefghjk23456789", k=24))
_SIGNED = "https://storage.zqhost.example/zqbucket/o?X-Goog-Signature=" + "ab12" * 64


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
        sandbox=SandboxName(SANDBOX, rig.emulator.base_url, "us"),
        last_sync=LastSync("2026-11-24T13:20:11Z", 3, 5123456, "ab" * 32, 0.84),
        last_error=LastError("2026-11-24T13:21:00Z", "upload", f"refused 'zqerror file' at {_SIGNED}"),
        warnings=("'zqwarned/a b' holds a Stripe key in line 2 and is left out", "zqwarned2 cannot be watched"),
    )
    (state / "status.json").write_bytes(msgspec.json.encode(status))
    for path in state.iterdir():
        path.chmod(0o600)
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


def _report(rig: Rig, code: int = 0) -> str:
    done = rig.run("check", "--report")
    assert done.code == code, done
    written = os.fsencode(done.out)
    assert not CANARY.findall(written)
    assert KEY.encode() not in written
    assert SANDBOX.encode() not in re.findall(rb"[a-z]+", written)
    text = done.out
    for private in (str(rig.home), os.uname().nodename, "ab12ab12", "abababab", "10.0.0.7", "secret plan", "plan"):
        assert private not in text, private
    assert all(line.isprintable() for line in text.split("\n"))
    return text


def test_nothing_private_is_in_it(planted: Rig) -> None:
    """Canaries planted in each input are not in the report; what a developer needs is."""
    text = _report(planted)
    assert CANARY.search(os.fsencode(planted.run("check").out))  # the findings do show the names
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines() if "  " in line)
    assert (
        facts.items()
        >= {
            "secrets": "warn",
            "configuration.workspace.ignore": "2 entries",
            "configuration.sync.debounce_seconds": "0.2",
            "configuration.sandbox.agent_changes": "overwrite",
            "workspace.excluded by secrets": "1",
            "status.state": "stopped",
            "status.last_sync.archive_bytes": "5123456",
            "status.last_error.at": "2026-11-24T13:21:00Z",
            "status.last_error.step": "upload",
            "status.last_error.message": "set",
        }.items()
    )
    assert planted.count("initialize") == planted.count("export-artifacts") == 0


def test_a_broken_configuration(planted: Rig) -> None:
    """With a broken configuration there is a report too, without names."""
    planted.config_file.write_text('workspace.path = "zqplace"\nzqsection = {}\n')
    text = _report(planted, code=78)
    assert re.search(r"\nconfiguration +fail\n", text)
    assert "configuration." not in text
    planted.config_file.write_text('[workspace\npath = "zq')
    text = _report(planted, code=78)
    assert re.search(r"\nconfiguration +fail\n", text)
