"""The pictures in the documents: made of what a terminal showed, small, readable, and loading nothing."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pyte
import pytest

from tests.repo.sources import REPO
from tests.screens import picture
from tests.screens.scenes import SCENES

FOLDER = REPO / "docs/screens"
PICTURES = tuple(sorted(FOLDER.glob("*.svg")))
LARGEST_BYTES = 40 * 1024
# What WCAG 2 asks of text of ordinary size.
CONTRAST = 4.5


@pytest.fixture
def screen() -> pyte.Screen:
    """A small terminal with one of each thing."""
    screen = pyte.Screen(30, 5)
    pyte.Stream(screen).feed("plain\r\n\033[1;32mpass\033[0m  a <b> & c\r\n  \033[33m━━╸\033[0m thé")
    return screen


def test_every_character_is_in_its_cell(screen: pyte.Screen) -> None:
    """A run begins at its column and is as wide as its cells, whatever the reader's font."""
    texts = {each.text: each for each in ET.fromstring(picture.svg(screen, "t")) if each.tag.endswith("text")}
    assert list(texts) == ["plain", "pass", "a <b> & c", "━━╸", "thé"]
    cell = float(texts["plain"].attrib["textLength"]) / len("plain")
    left = float(texts["plain"].attrib["x"])
    for text, column in (("pass", 0), ("a <b> & c", 6), ("━━╸", 2), ("thé", 6)):
        assert float(texts[text].attrib["x"]) == pytest.approx(left + column * cell)
        assert float(texts[text].attrib["textLength"]) == pytest.approx(len(text) * cell)
    assert (texts["pass"].attrib["class"], texts["━━╸"].attrib["class"]) == ("green bold", "brown")
    assert "class" not in texts["plain"].attrib


def test_empty_rows_at_the_end_are_cut(screen: pyte.Screen) -> None:
    """The picture ends with the last row that shows something."""
    rows = {each.attrib["y"] for each in ET.fromstring(picture.svg(screen, "t")) if each.tag.endswith("text")}
    height = float(ET.fromstring(picture.svg(screen, "t")).attrib["viewBox"].split()[3])
    assert len(rows) == 3
    assert max(map(float, rows)) < height < max(map(float, rows)) + 30


def test_every_colour_can_be_read() -> None:
    """Light and dark: each ink has enough contrast on the ground that comes with it."""
    for name, pair in {**picture.COLOURS, "ink": picture.INK}.items():
        for mode in (0, 1):
            assert _contrast(pair[mode], picture.GROUND[mode]) >= CONTRAST, (name, mode)


def test_each_scene_has_its_picture() -> None:
    """No scene without a picture, no picture without a scene, and none that no page shows."""
    assert {each.stem for each in PICTURES} == {scene.name for scene in SCENES}
    pages = "".join(page.read_text("utf-8") for page in (REPO / "README.md", *(REPO / "docs").glob("*.md")))
    assert set(re.findall(r"screens/([\w-]+)\.svg\)", pages)) == {scene.name for scene in SCENES}


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_a_picture_stands_alone(file: Path) -> None:
    """It is small, has a title for readers who cannot see it, and holds nothing that loads, runs or is a secret."""
    text = file.read_text("utf-8")
    assert len(text.encode()) < LARGEST_BYTES
    top = ET.fromstring(text)
    assert {each.tag.rpartition("}")[2] for each in top.iter()} == {"svg", "title", "style", "rect", "text"}
    assert next(each.text for each in top if each.tag.endswith("title"))
    assert not re.search(r"url\(|@import|@font-face|href|\bon\w+=|X-Goog", text, re.IGNORECASE)
    assert not re.search(r"Traceback|internal error|Usage:", text)


def _contrast(one: str, other: str) -> float:
    """The contrast by WCAG 2: from 1 for the same colour to 21 for black on white."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    components = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in components)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
