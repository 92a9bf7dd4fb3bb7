"""The pictures in the documents: made of what a terminal showed, and loading nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from tests.repo.sources import REPO
from tools.screens.scenes import SCENES

FOLDER = REPO / "docs/screens"
PICTURES = tuple(sorted(FOLDER.glob("*.svg")))


def test_each_scene_has_its_picture() -> None:
    """No scene without a picture, no picture without a scene, and none that no page shows."""
    assert {each.stem for each in PICTURES} == {scene.name for scene in SCENES}, "run: python -m tools.screens"
    pages = "".join(page.read_text("utf-8") for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")))
    shown = set(re.findall(r"screens/([\w-]+)\.svg\)", pages))
    assert shown == {scene.name for scene in SCENES}, "show it on a page, or take it out of tools/screens/scenes.py"


def test_a_picture_stands_alone() -> None:
    """It has a title for readers who cannot see it, and holds nothing that loads, runs or is a secret."""
    for file in PICTURES:
        text, remedy = file.read_text("utf-8"), f"{file.name}: mend its scene or picture.py in tools/screens, run it"
        top = ET.fromstring(text)
        assert {each.tag.rpartition("}")[2] for each in top.iter()} == {"svg", "title", "style", "rect", "text"}, remedy
        assert next(each.text for each in top if each.tag.endswith("title")), remedy
        assert not re.search(r"url\(|@import|@font-face|href|\bon\w+=|X-Goog", text, re.IGNORECASE), remedy
        assert not re.search(r"Traceback|internal error|Usage:", text), remedy
