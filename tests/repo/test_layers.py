"""Imports go one way, decisions are pure, and each foreign library has its place: that keeps a change small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.repo.sources import REPO, sources
from tools.mutation.__main__ import DECISIONS

# In the order of a change's way: a package imports itself and those before it.
PACKAGES = (
    "core",
    "model",
    "selection",
    "store",
    "watch",
    "scan",
    "archive",
    "remote",
    "sandbox",
    "sync",
    "merge",
    "report",
    "daemon",
    "emulator",
    "cli",
)
# The emulator stands in for a foreign server: what it shared with the client, neither could check. The client reads
# with `archive` what others packed, and so does the emulator.
EMULATOR_IMPORTS = {"core", "archive", "emulator"}

# The modules that decide, by package: each gives the same result for the same values, whenever it is called.
PURE = {
    "cli/apply": "plan_text",
    "core": "checksum choices errors text",
    "daemon": "scheduler",
    "model": "directory entry git_names manifest reconcile",
    "remote": "failure target",
    "sandbox": "look_request protocol sandbox_content setup_rules",
    "selection": "gitignore secret_scanner selection",
    "sync": "outcome status_document sync_plan",
    "watch": "changes",
}
# The tests of a pure module are in tests/unit, in the file of its name, but for these.
_TESTED_IN = {
    "core/errors": "test_failure test_text",
    "core/text": "test_text test_status_screen",
    "model/directory": "test_manifest",
    "model/entry": "test_entry test_manifest",
    "model/git_names": "test_entry",
    "remote/failure": "test_failure test_request_pacing",
    "sandbox/look_request": "test_protocol test_reconcile",
    "selection/gitignore": "test_selection",
    "selection/secret_scanner": "test_secret_scanner test_outcome",
    "sync/status_document": "test_status_screen",
    "watch/changes": "test_scheduler",
}
_UNTESTED = {
    "core/checksum": "it is a function of a library, which it loads",
    "core/choices": "it has values alone",
}

_IMPURE = {
    "it asks the system or the file system": "ctypes fcntl os pathlib shutil signal",
    "it reaches the network": "httpcore httpx socket urllib.request",
    "it reads, writes or watches": "io tempfile watchdog",
    "it starts threads or processes": "concurrent multiprocessing subprocess threading",
    "it waits": "asyncio select",
    "a decision is returned; the caller acts on it and logs it": "logging",
    "chance is an argument": "random secrets",
    "time is an argument": "time",
}

# Each of these modules is imported by the files here alone (shell patterns), for the reason beside it.
ONLY_IN = {
    "time": (
        ("syncd/core/clock.py", "syncd/sandbox/program.py"),
        "one module reads clocks, so that tests turn them by hand; a program in the sandbox has its own",
    ),
    "httpx": (
        ("syncd/remote/http_client.py",),
        "one module would change with its successor, and translates its errors",
    ),
    "httpcore": (
        ("syncd/remote/http_client.py", "syncd/remote/network.py"),
        "it is below httpx, and above the connections that are ours",
    ),
    "crc32c": (("syncd/core/checksum.py",), "of the library only the extension is loaded"),
    "watchdog": (("syncd/watch/*",), "its events stay inside the watch"),
    "isal": (("syncd/archive/*",), "compression is the archive's business"),
    "tarfile": (
        ("syncd/archive/*", "syncd/emulator/*", "syncd/sandbox/executions.py"),
        "archives are read where they are the subject; an execution is sent as one",
    ),
    "click": (("syncd/cli/*",), "only the commands know arguments and exit codes"),
    "subprocess": (
        (
            "syncd/cli/*",
            "syncd/emulator/*",
            "syncd/sync/synced_hook.py",
            "syncd/report/desktop_notifier.py",
            "syncd/merge/git.py",
            "syncd/sandbox/program.py",
        ),
        "the daemon starts git, once, the hooks and notify-send; the others start programs for a person, or there",
    ),
    "requests": ((), "httpx does it"),
    "asyncio": ((), "one upload at a time: a loop and its colour would buy nothing"),
}

HEAVY = ("asyncio", "httpx", "importlib.metadata", "watchdog", "tenacity", "ssl", "http.client", "syncd.emulator")


def test_every_package_has_its_row() -> None:
    """The architecture's table has the packages in the order of their imports, each with a module at which to begin."""
    page = (REPO / "docs/architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| \w[^|]{9,} \| `(syncd/[\w/]+\.py)` \|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(PACKAGES), "give each package its row in docs/architecture.md"
    for name, begins in rows:
        assert begins.startswith(f"syncd/{name}/"), f"docs/architecture.md: name a module of {name}, not {begins}"
        assert (REPO / begins).is_file(), f"docs/architecture.md: {begins} is not there: name another module"


@pytest.mark.parametrize("package", ["sandbox", "sync"])
def test_every_module_of_a_large_package_is_in_its_table(package: str) -> None:
    """The architecture says of each what it decides."""
    page = (REPO / "docs/architecture.md").read_text("utf-8")
    rows = page.partition(f"| `{package}` | decides |\n| --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    modules = [path.stem for path in (REPO / "syncd" / package).glob("*.py") if path.stem != "__init__"]
    assert sorted(named) == sorted(modules), f"docs/architecture.md: give each module of {package} its row"


def test_imports_go_one_way() -> None:
    """A module imports its own package and those before it."""
    strays = []
    for source in (source for source in sources("syncd") if source.package):
        position = PACKAGES.index(source.package)
        allowed = EMULATOR_IMPORTS if source.package == "emulator" else set(PACKAGES[: position + 1])
        for imported in source.imports():
            other = imported.module.split(".")[1] if imported.module.startswith("syncd.") else None
            if other in PACKAGES and other not in allowed:
                strays.append(f"{source.path}:{imported.line}: {source.package} imports {other}")
    assert strays == [], "move what is imported to the package that needs it, or to one before it in PACKAGES"


def _pure() -> dict[str, str]:
    """Each pure module's dotted name, by its path."""
    paths = [f"syncd/{package}/{name}" for package, names in PURE.items() for name in names.split()]
    return {f"{path}.py": path.replace("/", ".") for path in paths}


def test_decisions_are_pure() -> None:
    """A pure module cannot read a clock, a file, the network or chance, and imports only modules that cannot either."""
    pure, found = _pure(), []
    by_path = {source.path: source for source in sources("syncd")}
    ours = {path.removesuffix(".py").replace("/", ".") for path in by_path}
    for path in pure:
        for imported in by_path[path].imports():
            reasons = [why for why, modules in _IMPURE.items() if any(map(imported.within, modules.split()))]
            if imported.module in ours and imported.module not in pure.values():
                reasons.append(f"{imported.module} is not pure")
            found += [f"{path}:{imported.line}: {imported.module}: {reason}" for reason in reasons]
    assert found == [], "make it an argument, or do it in the module that calls"


def own_tests() -> dict[str, list[str]]:
    """The files of unit tests of each pure module, by its path; `tools.coverage` says if they run each of its lines."""
    found = {}
    for path in _pure():
        short = path.removeprefix("syncd/").removesuffix(".py")
        names = _TESTED_IN.get(short) or f"test_{short.split('/')[-1]}"
        if short not in _UNTESTED:
            found[path] = [f"tests/unit/{name}.py" for name in names.split()]
    return found


def test_each_decision_has_its_own_tests() -> None:
    """A pure module has a file of unit tests, which imports it: tests of others do not say what it decides."""
    pure = _pure()
    missing = []
    for path, files in own_tests().items():
        imports = f"from {pure[path]} import"
        missing += [f"{file}: {imports}" for file in files if not _has(REPO / file, imports)]
    assert missing == [], "test the module's decisions there, as tables"
    listed = {f"syncd/{short}.py" for short in (*_TESTED_IN, *_UNTESTED)}
    assert listed - pure.keys() == set(), "_TESTED_IN, _UNTESTED: take out what is no pure module any more"


def _has(file: Path, text: str) -> bool:
    return file.is_file() and text in file.read_text("utf-8")


def test_rules_are_mutated() -> None:
    """The mutation test changes each pure module in which it can, and each module that it names is there."""
    named = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]["only_mutate"]
    without = {"syncd/core/checksum.py", "syncd/sync/status_document.py"}
    remedy = "pyproject.toml, [tool.mutmut], only_mutate"
    assert _pure().keys() - without - set(named) == set(), f"{remedy}: add the module"
    assert [path for path in named if not (REPO / path).is_file()] == [], f"{remedy}: take out or rename the module"
    for module, functions in DECISIONS.items():
        path = f"{module.replace('.', '/')}.py"
        there = {
            node.name for node in ast.parse((REPO / path).read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
        }
        assert path in named, f"{remedy}: add {path}, of which DECISIONS in tools/mutation names functions"
        assert set(functions.split()) - there == set(), f"DECISIONS in tools/mutation: rename the function of {path}"


def test_each_outside_thing_has_its_place() -> None:
    """A module that reaches outside is imported only in its place."""
    strays = [
        f"{source.path}:{imported.line}: {module}: {reason}"
        for source in sources("syncd")
        for imported in source.imports()
        for module, (places, reason) in ONLY_IN.items()
        if imported.within(module) and not any(fnmatchcase(source.path, place) for place in places)
    ]
    assert strays == [], "call the module that has its place in ONLY_IN, or add this one there with the reason"


def test_what_is_imported_is_declared() -> None:
    """A library of another library's may go with its next version: what syncd imports is a dependency of its own."""
    lines = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    declared = {re.split(r"[^\w-]", line)[0] for line in lines}
    imported = {each.module.split(".")[0] for source in sources("syncd") for each in source.imports()}
    found = imported - sys.stdlib_module_names - {"syncd"} - declared
    assert found == set(), "pyproject.toml: declare it, or do without it"


def test_core_and_commands_load_fast() -> None:
    """Reading the configuration, `--help` and completion load none of the large libraries, and so answer at once."""
    core = ("settings", "directories", "api_key", "checksum")
    for statement in (*(f"import syncd.core.{module}" for module in core), "import syncd.cli.commands"):
        assert _loaded_by(statement) == "", f"{statement}: import what is slow inside of the function that needs it"
    assert _loaded_by("import syncd.core.errors", ("msgspec",)) == "", "syncd/core/errors.py: import no msgspec"


def _loaded_by(statement: str, heavy: tuple[str, ...] = HEAVY) -> str:
    """Which of the heavy modules a fresh interpreter holds after a statement."""
    code = f"import sys; {statement}; print(*[name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    return run.stdout.strip()
