"""A saved file arrives in the sandbox: the main job on small trees."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.system.command import CLOCK
from tests.system.rig import DEFAULTS, Rig
from tests.system.trees import tree


def test_a_first_sync_makes_the_sandbox_equal(rig: Rig) -> None:
    """All kinds of entries arrive, with any names, and the archive holds them in order and nothing else."""
    rig.write("src/main.py", "print('hello')\n")
    rig.write("run.sh", "#!/bin/sh\n")
    (rig.workspace / "run.sh").chmod(0o755)
    (rig.workspace / "empty/deep").mkdir(parents=True)
    (rig.workspace / "link").symlink_to("src/main.py")
    rig.write(os.fsdecode(b"odd \xff\n name"), b"\x00\xff")
    rig.write("naïve/ünï.txt", "ü")
    for name, at_s in (("early", -(1 << 40)), ("late", 1 << 40)):  # where the disk has room for such a time
        rig.write(name)
        os.utime(rig.workspace / name, (at_s, at_s))
    daemon = rig.up()
    wanted = rig.converged()
    assert set(rig.there()) == set(wanted)
    assert rig.archived() == sorted(wanted, key=lambda path: [os.fsencode(name) for name in path.split("/")])
    assert daemon.out == ""


def _locales(folder: Path) -> list[dict[str, str]]:
    """Return environments with other encodings than UTF-8: ASCII, and ISO 8859-1 where it can be made in the folder."""
    found = [{"LC_ALL": "C", "PYTHONUTF8": "0"}]
    if shutil.which("localedef") is not None:
        place = folder / "de_DE.ISO-8859-1"
        subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", place], capture_output=True, check=False)
        if place.exists():
            found.append({"LOCPATH": str(folder), "LC_ALL": place.name})
    return found


def test_a_locale_that_is_not_utf_8(rig: Rig, tmp_path: Path) -> None:
    """Names arrive byte for byte, and come home so; a process in another locale finds nothing to do."""
    rig.configure(DEFAULTS)
    subprocess.run(["git", "init", "-q", "-b", "gr\u00fcn"], cwd=rig.workspace, check=True)
    for path in ("\u00fc/\u00e9.txt", "l\udcfftin", "a"):
        rig.write(path)
    wanted = {path: what for path, what in tree(rig.workspace).items() if not path.startswith(".git")}
    sent = 0
    others = _locales(tmp_path)
    for rig.environ in (*others, {}):
        rig.ok("push")
        there = rig.there()
        assert {path: what for path, what in there.items() if not path.startswith(".git")} == wanted
        assert sent in (0, rig.count("initialize"))
        sent = rig.count("initialize")
    assert ".git/refs/heads/gr\u00fcn" in there
    assert rig.ok("ls").out.splitlines() == ["a", "l\udcfftin", "\u00fc/", "\u00fc/\u00e9.txt"]
    assert "l\\xfftin" in rig.ok("explain", f"{rig.workspace}/l\udcfftin").out
    agent = rig.agent
    agent.write("n\u0303", "theirs\n")
    agent.write(b"\xe4", "theirs\n")
    rig.ok("apply", "--yes")
    assert {"n\u0303", "\udce4"} <= set(os.listdir(rig.workspace))


def test_a_burst_is_one_upload(rig: Rig) -> None:
    """Writes of which none comes later than the quiet period after the one before: of a new folder's too."""
    quiet_s = 1.0
    rig.configure({"sync.debounce_seconds": quiet_s, "sync.max_wait_seconds": 100.0})  # a busy machine takes its time
    rig.up()
    rig.write("burst/first/start")
    last_s, longest_s, ends_s = CLOCK.monotonic_s(), 0.0, CLOCK.monotonic_s() + 2.5 * quiet_s
    while last_s < ends_s:
        rig.write("burst/first/again", str(last_s))
        (rig.workspace / "burst/first/again").unlink()
        CLOCK.sleep(0.005)
        now_s = CLOCK.monotonic_s()
        last_s, longest_s = now_s, max(longest_s, now_s - last_s)
    rig.write("burst/first/end")
    rig.converged()
    rig.ok("flush")
    assert rig.count("upload") == 2 or longest_s > 0.8 * quiet_s  # or gives this test no time


def test_a_burst_without_an_end_is_sent(rig: Rig) -> None:
    """After the longest wait, though each scan finds a folder that is new."""
    rig.configure({"sync.debounce_seconds": 3600, "sync.max_wait_seconds": 1.0})
    rig.up()
    uploads, number, ends_s = rig.count("upload"), 0, CLOCK.monotonic_s() + 60.0
    while rig.count("upload") < uploads + 2:
        number += 1
        rig.write(f"burst/{number}/in/it", str(number))
        CLOCK.sleep(0.02)  # a person's tools, not a flood
        assert CLOCK.monotonic_s() < ends_s
    rig.converged()


def test_what_changes_nothing_uploads_nothing(rig: Rig) -> None:
    """A touch, the same bytes again, a reverted change and what is excluded: in the same process and in the next."""
    rig.write("a", "one")
    rig.write("b", "two")
    rig.write("c", "three")
    daemon = rig.up()
    for stops in (True, False):
        rig.write("a", "one")
        os.utime(rig.workspace / "b")
        rig.write("like c", "three")
        (rig.workspace / "like c").rename(rig.workspace / "c")
        rig.write(".env", "SECRET=1")
        rig.ok("flush")
        rig.write("new")
        (rig.workspace / "new").unlink()
        rig.write("b", "other")
        rig.write("b", "two")
        rig.ok("flush")
        if stops:
            daemon.stop()
            rig.watch()
    assert rig.count("upload") == rig.count("initialize") == 1


def test_changes_made_while_nothing_ran_arrive(rig: Rig) -> None:
    """New, changed and deleted files are in the next process's snapshot."""
    rig.fill(10)
    rig.up().stop()
    rig.write("new")
    rig.write("folder1/file001.txt", "changed")
    (rig.workspace / "folder2/file002.txt").unlink()
    rig.start()
    wanted = rig.converged()
    rig.ok("flush")
    assert rig.archived() == sorted(wanted)


def test_excluded_files_are_not_sent(rig: Rig) -> None:
    """Ignored paths, secrets and links that lead outside are in no archive; changed rules are applied."""
    rig.write(".gitignore", "*.log\nbuild/\n")
    rig.write("build/out.o")
    rig.write("debug.log")
    rig.write(".env", "PASSWORD=1")
    rig.write("src/a.py")
    (rig.workspace / "out").symlink_to(rig.home)
    rig.up()
    assert rig.archived() == [".gitignore", "src", "src/a.py"]
    assert any("'out'" in warning for warning in rig.status()["warnings"])
    rig.write(".gitignore", "build/\n")
    rig.until(lambda: "debug.log" in rig.there(), "the log that is no longer ignored")
    assert rig.archived() == [".gitignore", "debug.log", "src", "src/a.py"]


def test_the_rules_of_the_repository_around_it(rig: Rig) -> None:
    """Ignore files above the workspace apply, are named by `explain` and `ls --excluded`, and their changes too."""
    for name in ("objects", "refs", "info"):
        (rig.home / ".git" / name).mkdir(parents=True)
    (rig.home / ".git/HEAD").write_text("ref: refs/heads/main\n")
    exclude, above = rig.home / ".git/info/exclude", rig.home / ".gitignore"
    exclude.write_text("*.log\n")
    above.write_text("*\n/work/dist/\n")  # a home directory in git: the workspace itself is ignored
    rig.write("debug.log")
    rig.write("dist/x")
    rig.write("src/a.py")
    rig.up()
    assert rig.archived() == ["src", "src/a.py"]
    assert f"excluded: debug.log, by {exclude}:1: *.log" in rig.run("explain", str(rig.workspace / "debug.log")).out
    assert f"dist/\t{above}:2: /work/dist/" in rig.run("ls", "--excluded").out
    exclude.write_text("")
    rig.until(lambda: "debug.log" in rig.there(), "the log that is no longer ignored")
    above.write_text("*.py\n")
    rig.until(lambda: "dist/x" in rig.there(), "the folder that is no longer ignored")
    assert rig.archived() == ["debug.log", "dist", "dist/x", "src"]


def test_what_worktreeinclude_names(rig: Rig) -> None:
    """What git ignores and an agent needs comes and goes with its lines, but no secret; an edit of it is sent like any
    other, and `explain` names the line.
    """
    home = {".env": "TOKEN=home\n", "own.log": "x\n", "node_modules/m.js": "x\n"}
    brought = {"a.log": "x\n", "data/d/x.csv": "1\n", "sub/b.log": "x\n"}
    rig.configure(DEFAULTS)
    rig.write(".gitignore", "*.log\ndata/\n.env\nnode_modules/\n")
    rig.write(".syncdignore", "own.log\n")
    for path, content in {**home, **brought, "src/a.py": "x\n"}.items():
        rig.write(path, content)
    rig.up()
    assert not {*home, *brought} & {*rig.there()}
    rig.write(".worktreeinclude", "*.log\ndata/\n.env\nnode_modules/\n")
    rig.until(lambda: {*brought} <= {*rig.there()}, "what it brings in")
    rig.write("data/d/x.csv", "2\n")
    rig.until(lambda: rig.agent.holds("data/d/x.csv", b"2\n"), "the edit")
    rig.write(".worktreeinclude", "data/\n")
    rig.until(lambda: "a.log" not in rig.there(), "what it names no more to go")
    assert not {*home} & {*rig.there()}
    said = rig.ok("explain", str(rig.workspace / "data/d/x.csv")).out
    assert said.startswith("included: data/d/x.csv (brought back by .worktreeinclude:1: data/)\n")
