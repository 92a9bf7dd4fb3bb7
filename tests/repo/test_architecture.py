"""docs/architecture.md names every package, docs/state.md every file that syncd writes, as the code has them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.repo.sources import REPO, Source, sources
from tests.repo.test_layers import PACKAGES

PAGE = REPO / "docs/architecture.md"
STATE = REPO / "docs/state.md"
PACKAGE_FOLDERS = sorted(path.parent for path in REPO.glob("syncd/*/**/__init__.py"))
# It makes the files; the others give them their names.
_MAKERS = {"syncd/core/durable_file.py"}
_ONLY_READ = {"syncd/core/config_file.py", "syncd/sandbox/saved_versions.py"}
_RECORDS = {"StateFile", "MarkerFile", "Record"}
_WRITING_CALLS = {"write_whole", "mkdtemp", "mkstemp", "NamedTemporaryFile"}
_WRITING_METHODS = {"bind", "write_text", "write_bytes", "touch", "mkdtemp", "mkstemp", "NamedTemporaryFile"}
_WRITING_MODES = re.compile(r"[wax+]")
_BEGINS = re.compile(r"[Bb]egins? (?:in|at) `(\w+)`")


@pytest.fixture(scope="module")
def page() -> str:
    """The map's text."""
    return PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def state() -> str:
    """The text of the page of files."""
    return STATE.read_text("utf-8")


def test_every_package_has_its_row(page: str) -> None:
    """The table has the packages in the order of their imports, each with a module at which to begin."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w[^|]{9,}) \| `(syncd/[\w/]+\.py)` \|$", _section(page, "Packages"), re.MULTILINE
    )
    assert [name for name, _, _ in rows] == list(PACKAGES)
    for name, _, begins in rows:
        assert begins.startswith(f"syncd/{name}/"), begins
        assert (REPO / begins).is_file(), begins


def test_each_package_says_where_it_begins() -> None:
    """The docstring of a package names the module, or its own function, at which a reader begins."""
    for package in PACKAGE_FOLDERS:
        tree = ast.parse((package / "__init__.py").read_text("utf-8"))
        named = _BEGINS.search(ast.get_docstring(tree) or "")
        begins = named[1] if named else "command"  # `syncd/cli/__init__.py` says so for all of its own
        places = [package / f"{begins}.py", package / begins / "__init__.py"]
        own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert begins in own or any(place.is_file() for place in places), package


def test_every_state_file_has_its_row(state: str) -> None:
    """The first table names exactly the files that the code gives names to, each beside the module that writes it."""
    listed: dict[str, set[str]] = {}
    for names, module in _rows(state, "In the state folder"):
        listed.setdefault(module, set()).update(names)
    # What commands and the emulator write is not in that folder.
    daemon = [source for source in _writers() if source.package not in {"cli", "emulator"}]
    written = {source.path: names for source in daemon if (names := set(_state_names(source)))}
    spool = written.pop("syncd/archive/chunk_store.py")
    assert listed == written
    assert spool == {"chunks"}


def test_every_module_that_writes_has_its_row(state: str) -> None:
    """A module that makes a file of any kind is in the section, and each module named there makes or reads one."""
    listed = set(re.findall(r"`(syncd/[\w/.]+)`", _section(state, "State"))) - _ONLY_READ
    written = {"syncd/emulator" if source.package == "emulator" else source.path for source in _writers()}
    assert listed == written


def test_each_row_has_the_cost(state: str) -> None:
    """Each row says what the loss of its file costs."""
    for line in _section(state, "State").split("## What is believed")[0].splitlines():
        if line.startswith("| ") and not line.startswith(("| file", "| ---")):
            assert re.fullmatch(r"[^|]{7,}", line.rstrip(" |").rpartition(" | ")[2]), line


def _section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one that is as high."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", page, re.MULTILINE)
    assert found, heading
    rest = page[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def _rows(page: str, heading: str) -> Iterator[tuple[list[str], str]]:
    """Each row's file names and the module that writes them."""
    for line in _section(page, heading).splitlines():
        cells = re.split(r"(?<!\\) \| ", line.strip("| "))
        module = re.fullmatch(r"`(syncd/[\w/.]+)`", cells[2]) if len(cells) == 4 else None
        if module is not None:
            yield re.findall(r"`([^`]+)`", cells[0]), module[1]


def _writers() -> Iterator[Source]:
    yield from (source for source in sources("syncd") if source.path not in _MAKERS and _writes(source))


def _writes(source: Source) -> bool:
    """True if a module makes files, records or sockets."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
            return True
        if isinstance(node, ast.Call) and _is_writing(node):
            return True
    return False


def _is_writing(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in _RECORDS | _WRITING_CALLS or method in _WRITING_METHODS:
        return True
    if name != "open" and method != "fdopen":
        return False
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and _WRITING_MODES.search(str(mode.value)) for mode in modes)


def _state_names(source: Source) -> Iterator[str]:
    """The names of files below the folder that a module is given, but for a record that is only read."""
    constants = {
        target.id: node.value.value
        for node in source.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    nodes = list(ast.walk(source.tree))
    read = [node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr == "load"]
    for node in nodes:
        if not isinstance(node, ast.Call) or len(node.args) < 2 or node in read:
            continue
        called, (folder, name) = ast.unparse(node.func), node.args[:2]
        # Only below a folder that is one: `os.path.join(os.path.dirname(…), …)` is no file of the state.
        joined = called == "os.path.join" and ast.unparse(folder) in {
            "folder",
            "self._folder",
            "db.folder",
            "state_folder",
        }
        if called in _RECORDS or joined:
            for each in [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value
                elif isinstance(each, ast.Name) and each.id in constants:
                    yield constants[each.id]
                elif isinstance(each, ast.JoinedStr) and isinstance(name, ast.IfExp):
                    yield re.sub(
                        r"{(?:self\.)?(\w+)}",
                        lambda match: match[1].rpartition("_")[2].upper(),
                        ast.unparse(each)[2:-1],
                    )
