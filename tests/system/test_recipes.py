"""The recipes of docs/how-to.md, one after the other in one home."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.rig import KEY, SANDBOX, Rig
from tests.system.shell import fresh_shell

_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_recipes(rig: Rig, tmp_path: Path, repo: Path) -> None:
    """Each does what it says, without a daemon."""
    blocks = {
        name: _BLOCK.findall(text) for name, text in _SECTION.findall((repo / "docs/how-to.md").read_text("utf-8"))
    }
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
