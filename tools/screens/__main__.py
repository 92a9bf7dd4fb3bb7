"""`python -m tools.screens` plays each scene with the real program and draws its terminal into docs/screens."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.screens.picture import svg
from tools.screens.scenes import SCENES, Scene, scene_rig

_REPO = Path(__file__).resolve().parents[2]
_FOLDER = _REPO / "docs/screens"
_INSIDE = "SYNCD_SCREENS_HOME"


def main() -> None:
    """Draw the named scenes, or all."""
    parser = argparse.ArgumentParser(prog="python -m tools.screens", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(scene.name for scene in SCENES)}; all")
    parser.add_argument("--text", action="store_true", help="print the screens too")
    chosen = parser.parse_args()
    known = {scene.name for scene in SCENES}
    if unknown := set(chosen.names) - known:
        parser.error(f"no scene is named {', '.join(sorted(unknown))}")
    _with_a_plain_home()
    failed = [
        scene.name
        for scene in SCENES
        if (not chosen.names or scene.name in chosen.names) and not _drawn(scene, show=chosen.text)
    ]
    sys.exit(f"not drawn: {', '.join(failed)}" if failed else 0)


def _drawn(scene: Scene, *, show: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="screens-") as folder, scene_rig(_home(folder)) as rig:
        try:
            screen = scene.play(rig)
        except AssertionError as failure:  # the others can be drawn all the same
            print(f"{scene.name}: {failure}", file=sys.stderr)
            return False
    (_FOLDER / f"{scene.name}.svg").write_text(svg(screen, scene.title), "utf-8")
    print(f"docs/screens/{scene.name}.svg")
    if show:
        print("\n".join(line.rstrip() for line in screen.display).rstrip(), end="\n\n")
    return True


def _with_a_plain_home() -> None:
    """Run again in a mount namespace with an empty /home, so that a screenshot says /home/dev, if possible."""
    used = (str(_REPO), sys.prefix, sys.base_prefix)
    if _INSIDE in os.environ or shutil.which("unshare") is None or any(path.startswith("/home/") for path in used):
        return
    into = ["unshare", "--user", "--map-root-user", "--mount"]
    empty = "mount -t tmpfs tmpfs /home"
    if subprocess.run([*into, "sh", "-c", empty], capture_output=True, check=False).returncode:
        return
    again = [*into, "sh", "-c", f'{empty} && exec "$@"', "sh", sys.executable, "-m", "tools.screens", *sys.argv[1:]]
    os.chdir(_REPO)
    os.execvpe("unshare", again, {**os.environ, _INSIDE: "/home/dev"})


def _home(folder: str) -> Path:
    """Return an empty home, /home/dev if possible."""
    wanted = os.environ.get(_INSIDE)
    if wanted is None:
        return Path(folder) / "home"
    shutil.rmtree(wanted, ignore_errors=True)
    return Path(wanted)


if __name__ == "__main__":
    main()
