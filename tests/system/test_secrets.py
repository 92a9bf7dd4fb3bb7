"""The commands about a file with a secret: all report it, none shows it, and it is never sent."""

from __future__ import annotations

import gzip
import json
import random
import signal
from pathlib import Path

from tests.system.rig import KEY, Rig

# Put together when run, so that this file holds none.
VALUE = "sk_live_" + "".join(random.Random(3).choices("ABCDEFGHJKabcdefghjk23456789", k=24))
SECRET = f"# settings\nSTRIPE = '{VALUE}'\n"


def nowhere(rig: Rig, *values: str) -> None:
    """Check that no secret is in an archive, the sandbox, the state folder, the spool, or any output."""
    rig.close()
    outputs = [daemon.out + daemon.err for daemon in rig.daemons]
    outputs += [done.out + done.err for done in rig._finished]
    stored = [path for top in (rig.home / ".local", rig.home / ".cache") for path in top.rglob("*") if path.is_file()]
    stored += [path for path in Path(rig.sandbox.workspace).rglob("*") if path.is_file()]
    archives = [gzip.decompress(path.read_bytes()) for path in (rig.emulator.data_dir / "bucket").rglob("*.????????")]
    seen = [*(output.encode() for output in outputs), *(path.read_bytes() for path in stored), *archives]
    assert len(seen) > 5
    assert not [value for value in values for content in seen if value.encode() in content]


def test_all_say_the_same(rig: Rig) -> None:
    """`status`, `ls`, `explain` and `check` name file, line and remedy; the daemon sends all other files."""
    rig.fill(5)
    rig.write("conf/settings.py", SECRET)
    rig.write("notes.txt", f"key: {KEY}\n")
    daemon = rig.up()
    assert rig.until(lambda: len(rig.shown()["warnings"]) == 2, "both warnings")
    status = rig.status()
    assert status["warnings"][0].startswith(
        "'conf/settings.py' holds a Stripe key in line 2 and is left out: take it out"
    )
    assert "workspace.allow_secrets" in status["warnings"][0]
    assert "'notes.txt' holds syncd's own API key in line 1" in status["warnings"][1]
    assert status["pending"] is False
    assert "warning" in rig.ok("status").out
    for command in ((), ("--json",)):
        assert "settings.py" not in rig.ok("ls", *command).out
    ignored = rig.ok("ls", "--ignored").out.splitlines()
    assert "conf/settings.py\tsecrets: a Stripe key in line 2" in ignored
    rows = {row["path"]: row["rule"] for row in json.loads(rig.ok("ls", "--ignored", "--json").out)}
    assert rows["notes.txt"] == "secrets: syncd's own API key in line 1"
    said = rig.ok("explain", str(rig.workspace / "conf/settings.py")).out
    assert said == "left out: conf/settings.py, by secrets: a Stripe key in line 2\n"
    assert "included" in rig.ok("explain", str(rig.workspace / "folder0/file000.txt")).out
    assert "holds a Stripe key in line 2" in rig.ok("check").out
    assert "equal" in rig.ok("verify").out
    rig.converged(lambda path: path in ("conf/settings.py", "notes.txt"))
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    core = next(line.split() for line in limits.splitlines() if line.startswith("Max core"))
    assert core[4:6] in (["1", "1"], ["0", "0"])
    rig.kill()
    nowhere(rig, VALUE)


def test_the_remedy(rig: Rig) -> None:
    """A save without the secret is sent at once; a save with it again leaves what was sent."""
    rig.write("settings.py", SECRET)
    rig.write("other.py", "pass\n")
    daemon = rig.up()
    rig.until(lambda: rig.shown()["warnings"], "the warning")
    rig.write("settings.py", SECRET.replace(VALUE, "from the environment"))
    rig.converged()
    rig.until(lambda: not rig.shown()["warnings"], "the warning to go")
    rig.write("settings.py", SECRET)
    rig.until(lambda: "may still be in the sandbox" in str(rig.shown()["warnings"]), "the warning about the older one")
    assert "from the environment" in Path(rig.sandbox.workspace, "settings.py").read_text()
    # After a kill and a start the finding is kept, and nothing is sent again.
    daemon.kill()
    uploads = rig.count("upload")
    rig.start()
    rig.in_state("watching")
    rig.until(lambda: "a Stripe key in line 2" in str(rig.shown()["warnings"]), "the warning of the next process")
    assert rig.count("upload") == uploads
    nowhere(rig, VALUE)


def test_allowed_by_a_reload(rig: Rig) -> None:
    """`allow_secrets` applies after SIGHUP; a `!` in it, or a pattern that matches nothing, is refused."""
    rig.write("tests/fixtures/key.pem", "name alone\n")
    rig.write("tests/fixtures/settings.py", SECRET)
    rig.write("a.txt")
    daemon = rig.up()
    for pattern in ("!tests/", "[a-"):
        rig.configure({"workspace.allow_secrets": [pattern]})
        refused = rig.run("ls")
        assert refused.code == 78
        assert "workspace.allow_secrets" in refused.err
    rig.configure({"workspace.allow_secrets": ["tests/fixtures/"]})
    daemon.send(signal.SIGHUP)
    rig.converged()
    rig.until(lambda: rig.shown()["state"] == "watching" and not rig.shown()["warnings"], "no warning")
    assert "brought back" not in rig.ok("explain", str(rig.workspace / "tests/fixtures/settings.py")).out


def test_push_by_itself(rig: Rig) -> None:
    """Without a daemon it is excluded as well, and `status` reports it; `ls` works without a key."""
    rig.write("settings.py", SECRET)
    rig.write("a.txt")
    rig.ok("push")
    assert "a Stripe key in line 2" in str(rig.status()["warnings"])
    rig.key_file.unlink()
    assert rig.ok("ls").out == "a.txt\n"
    nowhere(rig, VALUE)
