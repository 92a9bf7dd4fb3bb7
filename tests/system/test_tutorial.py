"""The tutorial and the recipes, typed as they are: every command works, and prints what is shown under it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.system.command import wait_until
from tests.system.rig import KEY, SANDBOX, Rig
from tests.system.shell import Shell, fresh_shell

_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = "8765"
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(rig: Rig, tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty home."""
    with fresh_shell(rig, tmp_path) as shell:
        yield shell


def test_the_tutorial(rig: Rig, shell: Shell, repo: Path) -> None:
    """It goes from an empty home to the agent's files and back; the real sandbox at the end is another emulator."""
    free = str(_free_port())
    blocks = _BLOCK.findall((repo / "docs/tutorial.md").read_text("utf-8"))
    assert len(blocks) > 20
    for (kind, text), (next_kind, shown) in pairwise([*blocks, ("", "")]):
        if kind == "text":
            continue
        typed = text.replace(_PORT, free).replace("syncd diff --stat\n", "syncd diff --stat || test $? = 1\n")
        if "YOUR-SANDBOX-ID" in typed:
            typed = typed.replace("YOUR-SANDBOX-ID", f"{rig.sandbox.id} --base-url {rig.emulator.base_url}")
        shell.types(typed)
        if typed.startswith("syncd run"):
            _until_watching(rig)
        if "install -m 600" in typed:
            rig.write_key(rig.emulator.api_key)  # what the person does with an editor
        if next_kind == "text":
            _expect(shell, typed, shown.replace(_PORT, free))
    assert (rig.sandbox.workspace / "src/brew.py").read_text() == 'print("three minutes")\n'
    assert not (rig.sandbox.workspace / ".env").exists()


def test_recipes(rig: Rig, tmp_path: Path, repo: Path) -> None:
    """Those of docs/how-to.md, one after the other in one home: each does what it says, without a daemon."""
    sections = _SECTION.findall((repo / "docs/how-to.md").read_text("utf-8"))
    blocks = {name: [block for kind, block in _BLOCK.findall(text) if kind == "sh"] for name, text in sections}
    ci, rules, rebase = (
        blocks[name] for name in ("Push from CI", "Send a file that a rule excludes", "Pause for a large rebase")
    )
    rig.environ |= {"KLAVIS_API_KEY": KEY, "SANDBOX_ID": SANDBOX, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for name, value in (("NAME", "dev"), ("EMAIL", "dev@example.com")):
        rig.environ |= {f"GIT_{who}_{name}": value for who in ("AUTHOR", "COMMITTER")}

    def sent() -> set[str]:
        place = rig.sandbox.workspace
        paths = {path.relative_to(place) for path in place.rglob("*")}
        return {path.as_posix() for path in paths if path.parts[0] != ".git"}

    rig.write("dist/app.js")
    rig.write(".gitignore", "dist/\n")
    with fresh_shell(rig, tmp_path) as shell:
        shell.types("cd work && git init -q -b main && git add . && git commit -qm one")
        base_url = f' --base-url {rig.emulator.base_url} --id "$SANDBOX_ID"'
        shell.types(ci[0].replace(' --id "$SANDBOX_ID"', base_url))
        assert sent() == {".gitignore"}

        shell.types(rules[0])
        assert shell.printed == "excluded: dist/app.js, as its folder dist/ is, by .gitignore:1: dist/\n"
        shell.types(rules[1] + "syncd flush --timeout 20")
        assert sent() == {".gitignore", ".syncdignore", "dist", "dist/app.js"}

        shell.types(rebase[0])
        assert "paused" in shell.printed
        assert "resumed" in shell.printed


def _until_watching(rig: Rig) -> None:
    """Wait for the daemon, as a person does who reads on; a flush that comes before it would sync by itself."""
    log = rig.home / "syncd.log"
    rig.until(lambda: log.exists() and "watching" in log.read_text(), "the daemon")


def _expect(shell: Shell, typed: str, shown: str) -> None:
    """Wait for this output, as background programs print at any time."""
    pattern = _pattern(shown)
    wait_until(lambda: pattern.fullmatch(shell.printed), lambda: f"$ {typed}\nshows\n{shell.printed}\nand not\n{shown}")


def _pattern(shown: str) -> re.Pattern[str]:
    """Return a pattern: a line `…` matches any lines, `…` in a line any text, and a number any number."""
    return re.compile("".join(r"(?:.*\n)*" if line == "…" else _line(line) for line in shown.splitlines()))


def _line(line: str) -> str:
    shown = re.sub(r"[0-9][0-9.,]*", r"[0-9][0-9.,]*", re.escape(line).replace("…", ".*"))
    # On a busy machine the daemon's own sync comes before the flush, which has saved nothing then.
    return rf"(?:{shown}\n){'?' if line.startswith('saved: ') else ''}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
