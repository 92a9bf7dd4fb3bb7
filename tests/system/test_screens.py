"""The scenes of the screenshots, played with the real program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.screens.picture import svg
from tools.screens.scenes import SCENES, Scene, scene_rig

# The others take uploads of seconds; what they need of the stage is the same.
PLAYED = {"check": "pass  sandbox", "init": "config.toml"}


@pytest.mark.parametrize("scene", [each for each in SCENES if each.name in PLAYED], ids=lambda scene: scene.name)
def test_a_scene_can_be_played(scene: Scene, tmp_path: Path) -> None:
    """The command runs on a terminal and shows the scene's subject."""
    with scene_rig(tmp_path / "home") as rig:
        screen = scene.play(rig)
        shown = "\n".join(line.rstrip() for line in screen.display)
    assert PLAYED[scene.name] in shown, shown
    assert "internal error" not in shown
    assert svg(screen, scene.title).count("<text") > 10
