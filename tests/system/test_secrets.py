"""The commands about a file with a secret: all report it, none shows it, and it is never sent."""

from __future__ import annotations

import gzip
import json
import os
import random
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
    archives = [gzip.decompress(path.read_bytes()) for path in (rig.emulator.data_dir / "bucket").rglob("*.tar.gz")]
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
        "'conf/settings.py' holds a Stripe key in line 2 and is excluded: take it out"
    )
    assert "workspace.allow_secrets" in status["warnings"][0]
    assert "'notes.txt' holds syncd's own API key in line 1" in status["warnings"][1]
    assert status["pending"] is False
    assert "warning" in rig.ok("status").out
    for command in ((), ("--json",)):
        assert "settings.py" not in rig.ok("ls", *command).out
    ignored = rig.ok("ls", "--excluded").out.splitlines()
    assert rig.ok("ls", "--ignored").out.splitlines() == ignored
    assert "conf/settings.py\tsecrets: a Stripe key in line 2" in ignored
    rows = {row["path"]: row["rule"] for row in json.loads(rig.ok("ls", "--excluded", "--json").out)}
    assert rows["notes.txt"] == "secrets: syncd's own API key in line 1"
    said = rig.ok("explain", str(rig.workspace / "conf/settings.py")).out
    assert said == "excluded: conf/settings.py, by secrets: a Stripe key in line 2\n"
    assert "included" in rig.ok("explain", str(rig.workspace / "folder0/file000.txt")).out
    assert "in sync" in rig.ok("verify").out
    rig.converged(lambda path: path in ("conf/settings.py", "notes.txt"))
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    core = next(line.split() for line in limits.splitlines() if line.startswith("Max core"))
    assert core[4:6] in (["1", "1"], ["0", "0"])
    rig.kill()
    nowhere(rig, VALUE)


def test_a_push_of_a_secret_alone(rig: Rig) -> None:
    """Nothing has to be sent, and the file does not count as one that the sandbox has."""
    rig.fill(3)
    rig.ok("push")
    rig.write("settings.py", SECRET)
    for _ in range(2):
        assert rig.ok("push").out == "nothing to do: the sandbox holds all 3 files\n"


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
    rig.watch()
    rig.until(lambda: "a Stripe key in line 2" in str(rig.shown()["warnings"]), "the warning of the next process")
    assert rig.count("upload") == uploads
    nowhere(rig, VALUE)


def test_own_files_stay_by_place(rig: Rig) -> None:
    """Configurations and their keys are never sent, whatever is in them, what includes them, and who replaces them."""
    work = rig.workspace = rig.home / ".config"
    keys = work / "keys"
    keys.mkdir()
    for name, value in (("first", KEY), ("other", "a-key-of-another"), ("broken", "a-key-of-a-third")):
        (keys / name).write_text(f"{value}\n")
        (keys / name).chmod(0o600)
    (keys / "current").symlink_to("first")
    (work / "syncd/other.toml").write_text(
        f"[workspace]\npath = '/srv'\n[sandbox]\nid = 'x'\napi_key_file = '{keys}/other'\n"
    )
    (work / "syncd/broken.toml").write_text("[sandbox\napi_key_file = '../keys/broken'\n")
    os.link(keys / "first", work / "notes.txt")
    rig.write(".syncdignore", "!syncd\n!keys\n!*\n")
    rig.configure(
        {
            "sandbox.api_key_file": str(keys / "current"),
            "workspace.upload_secrets": True,
            "workspace.git": "raw",
            "workspace.use_gitignore": False,
        }
    )
    rig.write("x.txt", "one\n")
    rig.up()
    assert "by syncd's own files: a second name" in rig.ok("explain", str(work / "notes.txt")).out
    for name in ("current", "other"):
        (rig.home / "new").write_text(f"a-key-of-{name}-anew\n")
        (rig.home / "new").rename(keys / name)
    (work / "syncd/late.toml").write_text(f"[sandbox]\nid = 'y'\napi_key_file = '{keys}/late'\n")
    (keys / "late").write_text("a-key-of-a-late-one\n")
    (work / "notes.txt").unlink()
    (keys / "first").unlink()
    rig.write("x.txt", "two\n")
    rig.ok("flush")
    assert {path.name for path in rig.sandbox.workspace.rglob("*")} == {".syncdignore", "keys", "x.txt"}
    assert (rig.sandbox.workspace / "x.txt").read_text() == "two\n"
    assert "by syncd's own files: /syncd" in rig.ok("explain", str(rig.config_file)).out
    assert "keys/other\tsyncd's own files: /keys/other\n" in rig.ok("ls", "--excluded").out
    assert rig.shown()["left_out"]["syncd's own files"] == 5
    nowhere(rig, KEY, "a-key-of")


def test_a_workspace_in_own_files(rig: Rig) -> None:
    """A workspace in syncd's own folders is refused."""
    rig.configure({"workspace.path": str(rig.config_file.parent)})
    refused = rig.run("push")
    assert refused.code == 78
    assert "is in syncd's own folder" in refused.err
    assert "`syncd config edit" in refused.err
