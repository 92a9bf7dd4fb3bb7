"""The pictures in the documents: made of what a terminal showed, readable, and loading nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from tests.repo.sources import REPO
from tools.screens import picture
from tools.screens.scenes import SCENES

FOLDER = REPO / "docs/screens"
PICTURES = tuple(sorted(FOLDER.glob("*.svg")))
# What WCAG 2 asks of text of ordinary size.
CONTRAST = 4.5


def test_every_colour_can_be_read() -> None:
    """Light and dark: each ink has enough contrast on the ground that comes with it."""
    for name, pair in {**picture.COLOURS, "ink": picture.INK}.items():
        for mode in (0, 1):
            assert _contrast(pair[mode], picture.GROUND[mode]) >= CONTRAST, (
                f"tools/screens/picture.py: give {name} more contrast in mode {mode}"
            )


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


def _contrast(one: str, other: str) -> float:
    """The contrast by WCAG 2: from 1 for the same colour to 21 for black on white."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    components = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in components)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
