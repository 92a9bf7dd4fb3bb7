"""The process keeps its secrets: no core dump, no access from outside, no copy of the key, no value in a crash."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from syncd.core.api_key import ApiKey, find_key
from syncd.core.errors import KeyRefused
from syncd.selection.git_config import personal_excludes

KEY = "klv-0123456789-nobody-may-see"
NOBODY = 65534


def script(code: str, repo: Path, env: dict[str, str] | None = None) -> str:
    """Run code in a fresh interpreter, and return both outputs together."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=repo,
        env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.stdout


def test_memory_is_closed_to_other_programs(repo: Path) -> None:
    """Memory and environment are closed to the user's other programs; the watch still works."""
    said = script(
        f"""
        import ctypes, os
        from syncd.core.hardening import close_memory
        libc = ctypes.CDLL(None)
        if os.geteuid() == 0:  # whom nothing is closed to
            os.setgroups([])
            os.setgid({NOBODY})
            os.setuid({NOBODY})
            libc.prctl(4, 1, 0, 0, 0)  # a change of user closes it too
        def others_see(us=os.getpid()):
            if os.fork() == 0:
                for name in ("environ", "mem", "maps"):
                    try:
                        open(f"/proc/{{us}}/{{name}}", "rb").close()
                        print(name, "open", flush=True)
                    except PermissionError:
                        print(name, "closed", flush=True)
                os._exit(0)
            os.wait()
        others_see()
        close_memory()
        others_see()
        folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        print("watched", libc.inotify_add_watch(libc.inotify_init1(0), b"/proc/self/fd/%d" % folder, 0x100) > 0)
        print("opened", os.open(f"/proc/self/fd/{{folder}}/.", os.O_RDONLY) > 0, os.listdir("/proc/self/fd") != [])
        """,
        repo,
        {"KLAVIS_API_KEY": KEY},
    )
    if "mem open" not in said:
        pytest.skip(f"this machine closes it anyway: {said[-200:]}")
    before, after = said.split("environ closed")
    assert before.split() == ["environ", "open", "mem", "open", "maps", "open"]
    assert after.split() == ["mem", "closed", "maps", "closed", "watched", "True", "opened", "True", "True"]


def test_each_command_with_a_key_closes_its_memory(repo: Path, tmp_path: Path) -> None:
    """A process that has the key is not dumpable."""
    said = script(
        f"""
        import ctypes
        from syncd.core.settings import check_config
        from syncd.daemon.build import key_of
        config = check_config({{"workspace": {{"path": {str(tmp_path)!r}}}, "sandbox": {{"id": "box"}}}})
        print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
        key_of(config, {{"KLAVIS_API_KEY": {KEY!r}}})
        print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
        """,
        repo,
    )
    assert said.split() == ["1", "0"]


def test_the_limit_of_core_dumps(repo: Path) -> None:
    """The limit is one byte, which also stops a dump program; 0 if a stricter limit exists."""
    code = "import resource\n{}\nfrom syncd.core.hardening import no_core_dumps\nno_core_dumps()\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE))"
    unlimited = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    assert script(code.format(""), repo).strip() == ("(1, 1)" if unlimited else "(0, 0)")
    strict = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    assert script(code.format(strict), repo).strip() == "(0, 0)"


def test_a_crash_leaves_no_core(repo: Path, tmp_path: Path) -> None:
    """An aborted process leaves no core file, even if it might."""
    tmp_path.chmod(0o777)
    code = """
        import os, resource
        {}
        os.chdir({!r})
        os.abort()
    """
    allow = "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)"
    script(code.format(allow, str(tmp_path)), repo)
    if not list(tmp_path.iterdir()):
        pytest.skip("this machine writes no core files into the working directory")
    for file in tmp_path.iterdir():
        file.unlink()
    for harden in (
        "from syncd.core.hardening import no_core_dumps; no_core_dumps()",
        f"from syncd.core.hardening import close_memory; {allow}; close_memory()",
    ):
        script(code.format(harden, str(tmp_path)), repo)
        assert list(tmp_path.iterdir()) == []


def test_no_copy_of_a_key() -> None:
    """A key cannot be pickled or copied, and is not shown."""
    key = ApiKey(KEY, "a file")
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be copied") as caught:
            take(key)
        assert KEY not in str(caught.value)
    with pytest.raises(TypeError):
        vars(key)


@pytest.mark.parametrize(
    "crash",
    [
        "cli.cli.main = fail",
        "import threading; cli.cli.main = lambda **_: threading.Thread(target=fail).start()",
        "cli.cli.main = lambda **_: Dies() and None",
        "cli.cli.main = lambda **_: __import__('atexit').register(fail)",
    ],
    ids=["in the command", "in a thread", "where nothing can be raised", "at the end"],
)
def test_a_defect_is_one_line(repo: Path, crash: str) -> None:
    """An unexpected exception is logged with its place and none of its values."""
    said = script(
        f"""
        from syncd import cli
        def fail(*_, **__):
            key = {KEY!r}
            raise ValueError(f"https://bucket/?X-Goog-Signature=abc {{key}}") from RuntimeError(key)
        class Dies:
            __del__ = fail
        {crash}
        cli.main()
        """,
        repo,
    )
    assert said.startswith("syncd: internal error (ValueError at <string>:")
    assert said.count("\n") == 1
    for secret in (KEY, "Signature", "Traceback"):
        assert secret not in said


def test_git_does_not_get_the_key(tmp_path: Path) -> None:
    """Git gets the environment without the key."""
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\nenv >>{tmp_path}/told\nexit 1\n")
    git.chmod(0o755)
    personal_excludes({"PATH": f"{tmp_path}:{os.defpath}", "HOME": "/nowhere", "KLAVIS_API_KEY": KEY})
    reported = (tmp_path / "told").read_text()
    assert "HOME=/nowhere" in reported
    assert KEY not in reported


def test_a_credential_that_others_can_read(tmp_path: Path) -> None:
    """The service manager's file is refused if everybody can read or write it; its group may."""
    path = tmp_path / "klavis-api-key"
    path.write_text(KEY)
    for mode in (0o400, 0o440, 0o600):
        path.chmod(mode)
        assert find_key({"CREDENTIALS_DIRECTORY": str(tmp_path)}, "none").reveal() == KEY
    for mode in (0o444, 0o404, 0o602):
        path.chmod(mode)
        with pytest.raises(KeyRefused, match=f"mode {mode:04o}.*chmod 600"):
            find_key({"CREDENTIALS_DIRECTORY": str(tmp_path)}, "none")


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    """A file longer than any key is refused, not cut; a link's target counts."""
    path = tmp_path / "key"
    path.write_text("k" * 5000)
    path.chmod(0o600)
    with pytest.raises(KeyRefused, match="longer than any key"):
        find_key({}, str(path))
    path.write_text(KEY)
    (tmp_path / "link").symlink_to(path)
    assert find_key({}, str(tmp_path / "link")).reveal() == KEY
    path.chmod(0o644)
    with pytest.raises(KeyRefused, match="can be read by others"):
        find_key({}, str(tmp_path / "link"))
