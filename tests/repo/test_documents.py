"""What people read (documents, help, pictures, the example configuration) names what exists, in one word each."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import msgspec
import pytest

import syncd
from syncd.cli.commands import COMMANDS, cli
from syncd.core.errors import ExitCode
from syncd.core.settings import SECTIONS, AcquireKeys, check_config
from tests.repo.sources import REPO, sources
from tools.screens.scenes import SCENES

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


# -- the first pages


def test_the_changelog_has_this_version(repo: Path) -> None:
    """Its newest version is the one that the code says it is; what comes after it is unreleased."""
    versions = re.findall(r"^## (\S+)", (repo / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[versions[0] == "Unreleased"] == syncd.__version__, (
        "write the same version into CHANGELOG.md and syncd/__init__.py"
    )


def test_every_dependency_is_documented(repo: Path) -> None:
    """Each library that an installation brings is named with its use, and none that it does not bring."""
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    section = (repo / "CONTRIBUTING.md").read_text("utf-8").split("## Dependencies")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| ([\w-]+) \| \w{2,}", section, re.MULTILINE)) - {"library"}
    assert named == wanted, "CONTRIBUTING.md, Dependencies: give each library of pyproject.toml its row"


def test_the_map_has_every_folder_of_tests_and_tools(repo: Path) -> None:
    """Each folder of tests or a tool has one line in the map, and each line has its folder."""
    text = (repo / "docs/architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| `((?:tests|tools)/\w+)` \| \w", text, re.MULTILINE)
    folders = [
        f"{each}/{path.name}"
        for each in ("tests", "tools")
        for path in (repo / each).iterdir()
        if any(path.glob("*.py"))
    ]
    assert sorted(listed) == sorted(folders), "docs/architecture.md: give each folder of tests and each tool its row"


def test_the_documents_name_only_what_is_there(repo: Path) -> None:
    """A page that points at a test or a module points at one that exists."""
    pages = [
        *sorted((repo / "docs").rglob("*.md")),
        *(repo / name for name in ("CONTRIBUTING.md", "SECURITY.md", "SKILL.md")),
    ]
    for page in pages:
        for path in set(
            re.findall(r"`((?:tests|tools|syncd|systemd|packaging|docs|\.ci)/[\w./@-]+)`", page.read_text("utf-8"))
        ):
            assert "NAME" in path or (repo / path).exists(), f"{page.name}: {path} is not there: name what is"


def test_each_promise_has_its_tests(repo: Path) -> None:
    """The list of tests has each promise, by its number and name, and each test that it names is there."""
    listed = (repo / "tests/README.md").read_text("utf-8")
    promises = re.findall(r"^(\d+\. \*\*.+?)\.?\*\*", (repo / "docs/reliability.md").read_text("utf-8"), re.MULTILINE)
    rows = re.split(r"^(?=\d+\. )", listed, flags=re.MULTILINE)[1:]
    titles = [row.split("**:")[0] for row in rows]
    assert titles == promises, "tests/README.md: list the promises as docs/reliability.md has them"
    for row in rows:
        named = re.findall(r"`(\w+/test_\w+)`", row)
        assert named, f"tests/README.md: name a test, `folder/test_name`: {row}"
        gone = [name for name in named if not (repo / f"tests/{name}.py").is_file()]
        assert gone == [], "tests/README.md: name tests that are there"


def test_the_skill_is_complete(repo: Path) -> None:
    """It has a name and a description, each exit code, and each list of `apply --json`."""
    text = (repo / "SKILL.md").read_text("utf-8")
    assert re.match(r"---\nname: [a-z-]+\ndescription: \S.{20,1000}\n---\n", text), "SKILL.md: begin as skills do"
    codes = set(re.findall(r"^\| (\d+) \| ", text, re.MULTILINE))
    assert codes == {str(int(code)) for code in ExitCode}, "SKILL.md: give each exit code its row"
    row = re.search(
        r"^\| `apply`.*? \| (.*) \|$", (repo / "tools/reference/formats.md").read_text("utf-8"), re.MULTILINE
    )
    assert row is not None
    lists = set(re.findall(r"`([a-z_]+)`", row[1].partition("; of `resolve`")[0]))
    assert set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)) == lists, (
        "SKILL.md: give each list of `syncd apply --json` its row"
    )


# -- words

# What is excluded, held, kept, in sync or not running has these names; these are other ones for the same.
_NOT = (
    r"\b(left|leaves?|leaving)( \w+){0,2} out\b",
    r"\bstays? (at )?home\b",
    r"\bh[eo]ld back\b|\bwithheld\b",
    r"\bin step\b|\bkeeps? [^.]{0,60}\bequal to\b",
    r"\bor ignore (it|them)\b",
    r"\bnever started\b",
    r"\b(the|an?) (API|bucket)\b(?! key)|\bthe live API\b",
    r"\bpackaging (the|\d)|\binitializing the\b",
    r"\bnothing to take\b",
)


@pytest.mark.parametrize("words", _NOT)
def test_people_read_one_word_for_one_thing(words: str) -> None:
    """No message, help, page or picture has these words, since the glossary has another one for the thing."""
    found = [where for where, text in _read_by_people() if re.search(words, text, re.IGNORECASE)]
    assert found == [], "write the word of docs/architecture.md, Glossary"


@cache
def _read_by_people() -> tuple[tuple[str, str], ...]:
    """Return each text that people read, with its place: the program's strings, the help of commands, the pages."""
    found = []
    for source in sources("syncd"):
        comments = _comments(source.tree)
        found += [
            (f"{source.path}:{node.lineno}", node.value)
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in comments
        ]
    for page in (
        *PAGES,
        *PICTURES,
        REPO / "config.example.toml",
        *REPO.glob("syncd/share/man/*/*"),
    ):
        if page.name != "CHANGELOG.md":  # it says what there was
            found += [(f"{page.name}:{at}", line) for at, line in enumerate(page.read_text("utf-8").splitlines(), 1)]
    return tuple(found)


def _comments(tree: ast.Module) -> set[int]:
    """Return the docstrings that no help shows: all but those of commands."""
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
        and not any(re.search(r"\.(command|group)", ast.unparse(each)) for each in getattr(node, "decorator_list", ()))
    }


# -- pictures

PICTURES = tuple(sorted((REPO / "docs/screens").glob("*.svg")))


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


# -- the example configuration

_NO_DEFAULT = (msgspec.NODEFAULT, None)
# A key or a table that is only an example: only the user knows its value.
_EXAMPLE = re.compile(r"^# (\w+ = .*|\[[\w.]+\])$", re.MULTILINE)


@pytest.fixture
def text(repo: Path) -> str:
    """The example as it is shipped."""
    return (repo / "config.example.toml").read_text("utf-8")


@pytest.mark.parametrize("table", _TABLES)
def test_every_key_is_shown_with_its_default(text: str, table: str) -> None:
    """A key is in the example with its default, or commented where it has none."""
    shown = _table(_uncommented(text), table)
    for field in msgspec.structs.fields(_TABLES[table]):
        if f"{table}.{field.name}" in _TABLES:
            continue
        remedy = f"config.example.toml: show {table}.{field.name} with the default of syncd/core/settings.py"
        assert field.name in shown, remedy
        if field.default not in _NO_DEFAULT:
            plain = list(field.default) if isinstance(field.default, tuple) else field.default
            assert shown[field.name] == plain, remedy


def test_only_what_has_no_default_is_commented(text: str) -> None:
    """The file as shipped changes no default, and names every key that can be left as it is."""
    active = tomllib.loads(text)
    for table in SECTIONS:
        optional = {field.name for field in msgspec.structs.fields(_TABLES[table]) if field.default not in _NO_DEFAULT}
        assert set(_table(active, table)) == optional, (
            f"config.example.toml, {table}: make a comment of what has no default, and of nothing else"
        )


def test_nothing_is_shown_that_does_not_exist(text: str) -> None:
    """Filled in, the example is a configuration that syncd takes, with an id or with a sandbox to acquire."""
    raw = _uncommented(text)
    for left_out in ("id", "acquire"):
        sandbox = {key: value for key, value in raw["sandbox"].items() if key != left_out}
        config = check_config({**raw, "sandbox": sandbox}, "/nowhere/config.toml")
        assert (config.sandbox.id is None) == (left_out == "id")


def _uncommented(text: str) -> dict[str, Any]:
    return tomllib.loads(_EXAMPLE.sub(r"\1", text))


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    for part in name.split("."):
        raw = raw.get(part, {})
    return raw


# -- help

WIDTH, NARROW = 80, 60


def _below(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context, terminal_width=WIDTH)
        yield below
        if isinstance(command, click.Group):
            yield from _below(command, below)


CONTEXTS = list(_below(cli, click.Context(cli, info_name="syncd")))


@pytest.mark.parametrize("width", [NARROW, WIDTH])
@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_it_fits_a_terminal(context: click.Context, width: int) -> None:
    """It has no more than 25 lines, none wider than a terminal, and cuts no sentence."""
    lines = click.Context(context.command, context.parent, context.info_name, terminal_width=width - 2).get_help()
    assert len(lines.splitlines()) <= 25, "say less: what stands after \\f is for the manual page alone"
    cut = [line for line in lines.splitlines() if line.endswith("...") and not line.endswith("]...")]
    assert [line for line in lines.splitlines() if len(line) > width] + cut == []


# What is typed is what stands after "Usage:".
_NOTHING_TO_CHOOSE = {"check", "completion", "pause", "reload", "resume"}
_CHANGE_SOMETHING = {
    *(f"sandbox {name}" for name in ("acquire", "add", "release", "remove")),
    *("config edit", "saved drop", "saved restore", "service install", "service logs"),
}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - _NOTHING_TO_CHOOSE | _CHANGE_SOMETHING))
def test_it_begins_with_examples(name: str) -> None:
    """Right after the line that says what it does, and each of them can be typed."""
    (context,) = (context for context in CONTEXTS if context.command_path == f"syncd {name}")
    _, examples, *_ = inspect.cleandoc(context.command.help or "").split("\n\n")
    assert examples.startswith("\b\n"), "put examples below the first line of the docstring, after a line with \\b"
    assert max(map(len, examples.splitlines())) <= NARROW - 2, "a narrow terminal would cut it in the middle of a word"
    for line in examples.splitlines()[1:]:
        for typed in line.split("  ")[0].replace(";", "&&").split("&&"):
            words = typed.split()
            if words[:1] == ["syncd"]:
                assert not refusal(words[1:]), f"{typed}: write a command that the program takes"
