"""The commands, keys and links in the documents are those that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from syncd.cli.commands import cli
from syncd.core.settings import SECTIONS, AcquireKeys, check_config
from tests.repo.sources import REPO

_AT_THE_TOP = (
    REPO / name
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "SKILL.md")
)
PAGES = tuple(sorted((*_AT_THE_TOP, *(REPO / "docs").rglob("*.md"))))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SHELL = set("();<>|&")
_TABLES: dict[str, type[msgspec.Struct]] = {**SECTIONS, "sandbox.acquire": AcquireKeys}
_KEYS = {f"{table}.{field.name}" for table, keys in _TABLES.items() for field in msgspec.structs.fields(keys)}
_KEY = re.compile(rf"(?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+")
# In a usage line these stand for what may be there, or not.
_PLACES = {"OPTIONS", "COMMAND", "ARGS...", "ARGS"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_somewhere(page: Path) -> None:
    """A link within the project names a file that exists, and a heading in it."""
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}: lead the link to a file that is there"
        if anchor:
            assert anchor in _anchors(target), f"{page.name}: {link}: lead the link to a heading that is there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_can_be_typed(page: Path) -> None:
    """Every `syncd …` has a verb, options and arguments that the program takes."""
    for line, words in _typed(page.read_text("utf-8")):
        wrong = refusal(words)
        assert not wrong, f"{page.name}: {line}: {wrong}: write a command that the program takes"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_key_can_be_set(page: Path) -> None:
    """A key that is named is one, and a piece of configuration is taken as it stands."""
    text = page.read_text("utf-8")
    named = [code for code in _CODE.findall(_FENCE.sub("", text)) if _KEY.match(code)]
    for code in named:
        key = _KEY.match(code)
        assert key is not None
        assert key[0] in _KEYS, f"{page.name}: {code}: name a key of syncd/core/settings.py"
    for kind, block in _FENCE.findall(text):
        if kind == "toml":
            check_config(_completed(tomllib.loads(block)))


def test_the_documents_are_all_in_the_index() -> None:
    """Each page is reached from the README."""
    linked = {link.partition("#")[0] for link in _LINK.findall((REPO / "README.md").read_text("utf-8"))}
    pages = {page.relative_to(REPO).as_posix() for page in PAGES} - {"README.md"}
    assert pages <= linked, "README.md: add a link to the page"


def _anchors(page: Path) -> set[str]:
    """The headings as the usual renderers name them: lower case, no punctuation, a dash for each space."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _typed(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each `syncd` of a shell block or of code in a sentence, with the words after it."""
    lines = [line for kind, block in _FENCE.findall(text) if kind == "sh" for line in block.splitlines()]
    codes = [code for code in _CODE.findall(_FENCE.sub("", text)) if code.startswith("syncd ")]
    # A verb that is only named need not say what it is about.
    codes = [f"{code} --help" if re.fullmatch(r"syncd [a-z ]+", code) else code for code in codes]
    for line in (*lines, *codes):
        plain = line.replace("[", "").replace("]", "").replace("\\|", "|").replace("…", "")
        lexer = shlex.shlex(plain, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] | None = None
        previous = ""
        for word in (*lexer, "&"):
            if set(word) <= _SHELL:
                if words is not None:
                    yield line, words[:-1] if word == ">" and words[-1:] == ["2"] else words
                words = None
            elif words is not None:
                words.append(word)
            elif word == "syncd" and (not previous or set(previous) <= _SHELL):
                words = []
            previous = word


def refusal(words: list[str]) -> str:
    """The reason why click refuses these words, which are not run; empty if it takes them."""
    command: click.Command = cli
    context = click.Context(cli, info_name="syncd")
    words = [word for word in words if word not in _PLACES]
    try:
        while isinstance(command, click.Group):
            if not words or words[0].startswith("-"):
                break
            name, *words = words
            found = command.get_command(context, name)
            if found is None:
                return f"no command {name}"
            settings = found.context_settings
            command, context = found, click.Context(found, parent=context, info_name=name, **settings)
        values, rest, _ = command.make_parser(context).parse_args(list(words))
    except click.UsageError as refused:
        return refused.format_message()
    if rest:
        return f"{rest[0]} is too much"
    helped = values.get("help") or words == ["--help"]
    needed = [each.name for each in command.params if isinstance(each, click.Argument) and each.required]
    lacking = [name for name in needed if name and not isinstance(values.get(name), str | tuple)]
    return f"{lacking[0]} is missing" if lacking and not helped else ""


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the keys that every one needs."""
    sandbox = raw.get("sandbox", {})
    return {
        **raw,
        "workspace": {"path": "/nowhere/at-all", **raw.get("workspace", {})},
        "sandbox": sandbox if "acquire" in sandbox else {"id": "any", **sandbox},
    }


@pytest.mark.parametrize("page", [REPO / "CONTRIBUTING.md", REPO / "docs/architecture.md"], ids=lambda page: page.name)
def test_each_name_of_the_code_is_there(page: Path) -> None:
    """A class, a constant or a method that a page sends a reader to is in the code, by that name."""
    words = set(re.findall(r"\w+", "\n".join(path.read_text("utf-8") for path in REPO.glob("[st]*/**/*.py"))))
    names = re.findall(r"`(_?[A-Z]\w*(?:\.\w+)*)`", page.read_text("utf-8"))
    assert len(names) > 5
    gone = [name for name in names if not words.issuperset(name.split("."))]
    assert gone == [], f"{page.name}: write the names that the code has now"


def test_each_name_of_the_code_is_where_the_guide_says() -> None:
    """What is "`NAME` in `FILE`" there is defined in that file, each part of a dotted name."""
    placed = re.findall(r"`(\w[\w.]*)` in\s+`([st]\w+/[\w/]+\.py)`", (REPO / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(placed) > 5
    for name, file in placed:
        text = (REPO / file).read_text("utf-8")
        for part in name.split("."):
            assert re.search(rf"^ *(?:class |def |async def )?{part}\b", text, re.MULTILINE), (
                f"CONTRIBUTING.md: {name} is not in {file}: name the file that it is in now"
            )
