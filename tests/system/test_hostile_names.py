"""Control characters in names and in responses of a server are shown escaped by every command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import unicodedata
from pathlib import Path

from tests.system.command import SYNCD
from tests.system.rig import DEFAULTS, Rig
from tests.system.terminal import Terminal

HOSTILE = (
    b"\x1b]0;owned\x07",  # sets a terminal's title
    b"\x1b[45mcolour",
    "c1\u009b31m".encode(),
    b"raw\x9b31m\xff",
    b"two\nlines",
    b"back\rwards",
    "\u202egnp.exe".encode(),
    "\u2066isolated".encode(),
    "line\u2028separator".encode(),
    b"\x7f\x08rubbed out",
    b"-rf",
    b" ",
    b"..\\",
)
# What the commands themselves write to a terminal: colours and weights, and the progress bar's moves.
_OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[12]?K|1A)|\r(?=\n)|\r(?=\x1b\[)|\r$")
_OTHERS_COLOUR = "\x1b[45m"
SAYS = "\x1b]0;owned\x07\x1b[45m\u202e\u2028\r\n\u009b31m"


class Shown:
    """Runs commands on their own terminal, and finds control characters that it would obey."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.environ = {**environ, "TERM": "xterm-256color", "COLUMNS": "400"}
        self.folder = folder

    def run(self, *args: str | bytes, answers: str = "") -> str:
        """Run `syncd ARGS` to its end, and return its output."""
        terminal = Terminal()
        terminal.start([*SYNCD, *args], self.environ, self.folder)
        try:
            terminal.type(answers)
            terminal.finish()
        finally:
            terminal.close()
        return self.harmless(args, terminal.written)

    @staticmethod
    def harmless(args: object, shown: bytes) -> str:
        """Return the text, which must hold only text and syncd's own control sequences."""
        text = shown.decode("utf-8")
        assert _OTHERS_COLOUR not in text, f"{args!r} showed {text!r}"
        bare = _OWN.sub("", text)
        obeyed = {c for c in bare if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
        assert not obeyed, f"{args!r} showed {obeyed!r} in {text!r}"
        assert "Traceback" not in text
        return bare


def _write(rig: Rig, path: bytes, content: bytes) -> None:
    rig.write(os.fsdecode(path), content)


def test_commands_find_the_daemon_of_a_link_to_a_name_that_is_shown_escaped(rig: Rig) -> None:
    """A no-break space, as macOS' keyboards make it, a line end, and bytes that are not UTF-8."""
    for name in (b"no\xc2\xa0break", b"two\nlines", b"raw\xff"):
        top = os.fsencode(rig.home) + b"/" + name
        os.mkdir(top)
        link = rig.home / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(os.fsdecode(top))
        rig.workspace = Path(os.fsdecode(top))
        rig.configure({"workspace.path": str(link)})
        rig.write("file", b"text")
        daemon = rig.up()
        assert rig.status()["pid"] == daemon.pid
        rig.ok("flush")
        rig.ok("push")
        rig.ok("apply")
        assert daemon.stop() == 0


def test_every_command_and_the_log_show_hostile_names_escaped(rig: Rig) -> None:
    """Names of files, folders, links, rules, the workspace and the configuration are escaped; in the daemon's log, as
    text and as JSON, those of changed and of excluded paths.
    """
    top = os.fsencode(rig.home) + b"/" + HOSTILE[1] + HOSTILE[6]
    os.mkdir(top)
    rig.workspace = Path(os.fsdecode(top))
    rig.configure()
    for name in HOSTILE:
        _write(rig, name, b"file")
        _write(rig, b"d-" + name + b"/" + name, b"below")
        os.symlink(b"/etc/" + name, top + b"/link-" + name)
        os.mkfifo(top + b"/fifo-" + name)
        _write(rig, b"ruled-" + name, b"left out")
        _write(rig, b"d-" + name + b"/.syncdignore", b"by-rule*\n")
        _write(rig, b"d-" + name + b"/by-rule-" + name, b"left out")
        _write(rig, b"ruled-" + name + b".pem", b"left out")
    _write(rig, b".gitignore", b"".join(b"ruled-" + name + b"\n" for name in HOSTILE if b"\n" not in name))
    show = Shown(rig.environment(), rig.workspace).run
    assert r"owned" in show("ls")
    assert r"\x1b" in show("ls", "--excluded")
    for command in (["ls", "--json"], ["ls", "--excluded", "--json"], ["check"], ["push"], ["push"]):
        show(*command)
    assert "leads outside" in show("status")
    for command in (["status", "--json"], ["verify"], ["verify", "--json"], ["flush"], ["pause"], ["resume"]):
        show(*command)
    name, other = HOSTILE[0], HOSTILE[3]
    for path in (name, b"ruled-" + other, b"d-" + name + b"/by-rule-" + other, b"none/" + name, b"/elsewhere/" + other):
        show("explain", os.path.join(top, path))
    show("ls", "--config", HOSTILE[0])

    daemon = rig.watch()
    initialized = rig.count("initialize", 200)
    _write(rig, HOSTILE[0], b"changed")
    rig.until(lambda: rig.count("initialize", 200) > initialized, "the sync of the change")
    os.truncate(os.path.join(top, HOSTILE[6]), 1 << 40)
    rig.in_state("held")
    show("status")
    assert "max_snapshot_mib" in show("push")
    daemon.stop()
    assert "max_snapshot_mib" in show("push")
    show("status")
    show("check")
    assert "owned" in Shown.harmless("run", daemon.err.encode("utf-8", "surrogateescape"))
    logged = rig.start("--log-format", "json", "--log-level", "debug")
    rig.until(lambda: "max_snapshot_mib" in logged.err, "the refusal")
    logged.stop()
    Shown.harmless("run", logged.err.encode("utf-8", "surrogateescape"))


def test_what_the_agent_wrote(rig: Rig) -> None:
    """Names, contents, links, commits and branches of the sandbox are escaped, whatever shows them, in a pager too."""
    rig.configure({**DEFAULTS, "sandbox.agent_changes": "hold"})
    rig.write("a", "ours\n")
    rig.write("both", "ours\n")
    subprocess.run(["git", "init", "-q"], cwd=rig.workspace, check=True)
    rig.ok("push")
    agent = rig.agent
    agent.write("a", b"".join(name + b"\n" for name in HOSTILE))
    agent.write("both", "theirs\n")
    for name in HOSTILE[:9]:
        agent.write(b"there-" + name, name + b"\n")
        agent.symlink(b"link-" + name, b"/" + name)
        agent.write(HOSTILE[2] + b"/" + name, b"below\n")
    for arguments in (("add", "-A"), ("commit", "-qm", SAYS), ("checkout", "-qb", "\u202e\u009b31m")):
        identity = ("-c", f"user.name={SAYS}", "-c", "user.email=agent@localhost")
        subprocess.run(["git", *identity, *arguments], cwd=rig.sandbox.workspace, check=True)
    rig.write("both", "ours again\n")
    rig.write(os.fsdecode(b"there-" + HOSTILE[6]), "ours\n")
    rig.ok("push")
    show = Shown({**rig.environment(), "PAGER": "cat"}, rig.workspace).run
    assert r"there-\x1b]0;owned\x07" in show("diff", "--name-only")
    assert HOSTILE[0] in rig.run("diff", "--name-only").out.encode("utf-8", "surrogateescape")
    shown = show("diff")
    assert r"+\x1b]0;owned\x07" in shown
    assert r"+raw\x9b31m\xff" in shown
    unreadable = Shown({**rig.environment(), "PAGER": "more 'x"}, rig.workspace)  # as no program
    assert r"+\x1b]0;owned\x07" in unreadable.run("diff")
    assert "owned" in show("diff", "--stat")
    assert "owned" in show("apply", answers="n\n")
    assert "branch" in show("apply", "--branch", "c1\u009b\u202e")
    assert r"\u202e" in show("status", "--json")
    show("pull", str(rig.home / "pulled"))
    assert "undone" in show("apply", "--yes") + show("apply", "--undo")
    assert r"\u202e" in show("saved", "show", rig.saved()[0]["id"])
    show("history")
    show("pull", "one", HOSTILE[0])


def _lie(op: str, status: int) -> str:
    """An answer with control characters wherever a text may be: as the fault of that operation."""
    words = dict.fromkeys(("detail", "local_sandbox_id", "created_at", "message", "sandbox_id"), SAYS)
    body = {**words, "status": "error", "servers": [{"id": SAYS, "server_name": SAYS}], "upload_url": f"x{SAYS}://h"}
    content = json.dumps({**body, "expires_in_minutes": 30})
    head = f"HTTP/1.1 {status} \x1b]0;owned\x07\r\nContent-Type: \x1b[45mtext\r\nContent-Length: {len(content)}\r\n\r\n"
    return f"{op}: raw {f'{head}{content}'.encode()!r}".replace("raw b'", "raw ")[:-1] + " always"


def test_a_hostile_server(rig: Rig) -> None:
    """Errors, states and names from the API and the bucket are escaped."""
    rig.write("a")
    terminal = Shown(rig.environment(), rig.workspace)
    rig.configure({"retry.give_up_after_seconds": 0})
    lies = [("upload-url", 200), ("upload-url", 401), ("upload-url", 503), ("upload", 400), ("initialize", 422)]
    for op, status in (*lies, ("initialize", 200)):
        rig.emulator.faults.clear()
        rig.faults(_lie(op, status))
        assert "syncd: " in terminal.run("push"), f"{op} {status} was believed"
    terminal.run("status")
    for status, forms in ((200, ((), ("--json",))), (401, ((),))):
        rig.emulator.faults.clear()
        rig.faults(_lie("get", status))
        terminal.run("check")
        for form in forms:
            terminal.run("sandbox", "show", *form)
