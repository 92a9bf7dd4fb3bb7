"""The process's data is protected: no dump, no access from outside, no copy of the key, no values in a traceback."""

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

from syncd.core.api_key import ApiKey
from syncd.merge.git import personal_excludes

KEY = "klv-0123456789-nobody-may-see"
NOBODY = 65534


def script(code: str, repo: Path, env: dict[str, str] | None = None) -> str:
    """Run the code in a fresh interpreter, and return both outputs together."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=repo,
        env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.stdout


def test_other_programs_of_the_user_have_no_access(repo: Path) -> None:
    """The user's other programs cannot read memory and environment; the process itself still can."""
    output = script(
        f"""
        import ctypes, os
        from syncd.core.process import make_undumpable
        libc = ctypes.CDLL(None)
        if os.geteuid() == 0:  # root may read everything
            os.setgroups([])
            os.setgid({NOBODY})
            os.setuid({NOBODY})
            libc.prctl(4, 1, 0, 0, 0)  # a change of user also makes a process undumpable
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
        make_undumpable()
        others_see()
        folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        print("watched", libc.inotify_add_watch(libc.inotify_init1(0), b"/proc/self/fd/%d" % folder, 0x100) > 0)
        print("opened", os.open(f"/proc/self/fd/{{folder}}/.", os.O_RDONLY) > 0, os.listdir("/proc/self/fd") != [])
        """,
        repo,
        {"KLAVIS_API_KEY": KEY},
    )
    if "mem open" not in output:
        pytest.skip(f"this machine closes it anyway: {output[-200:]}")
    before, after = output.split("environ closed")
    assert before.split() == ["environ", "open", "mem", "open", "maps", "open"]
    assert after.split() == ["mem", "closed", "maps", "closed", "watched", "True", "opened", "True", "True"]


def test_each_command_with_a_key_is_undumpable(repo: Path, tmp_path: Path) -> None:
    """Every process that gets the key through the wiring is undumpable."""
    output = script(
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
    assert output.split() == ["1", "0"]


def test_the_limit_of_core_dumps(repo: Path) -> None:
    """The limit is one byte, which disables core files and dump programs; 0 where a stricter limit is set."""
    code = "import resource\n{}\nfrom syncd.core.process import disable_core_dumps\ndisable_core_dumps()\n"
    code += "print(resource.getrlimit(resource.RLIMIT_CORE))"
    unlimited = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    assert script(code.format(""), repo).strip() == ("(1, 1)" if unlimited else "(0, 0)")
    strict = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    assert script(code.format(strict), repo).strip() == "(0, 0)"


def test_a_crash_leaves_no_core(repo: Path, tmp_path: Path) -> None:
    """A process that is aborted leaves no core file, even where one is allowed."""
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
        "from syncd.core.process import disable_core_dumps; disable_core_dumps()",
        f"from syncd.core.process import make_undumpable; {allow}; make_undumpable()",
    ):
        script(code.format(harden, str(tmp_path)), repo)
        assert list(tmp_path.iterdir()) == []


def test_no_copy_of_a_key() -> None:
    """A key cannot be pickled or copied, and tools that inspect objects do not show it."""
    key = ApiKey(KEY, "a file")
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="must not be copied") as caught:
            take(key)
        assert KEY not in str(caught.value)
    with pytest.raises(TypeError):
        vars(key)


@pytest.mark.parametrize(
    "crash",
    [
        "commands.cli.main = fail",
        "import threading; commands.cli.main = lambda **_: threading.Thread(target=fail).start()",
        "commands.cli.main = lambda **_: Dies() and None",
        "commands.cli.main = lambda **_: __import__('atexit').register(fail)",
    ],
    ids=["in the command", "in a thread", "where nothing can be raised", "at the end"],
)
def test_an_unexpected_exception_is_one_line(repo: Path, crash: str) -> None:
    """An unexpected exception in any place is one line with its location and none of its values."""
    output = script(
        f"""
        from syncd import cli
        from syncd.cli import commands
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
    assert output.startswith("syncd: internal error (ValueError at <string>:")
    assert output.count("\n") == 1
    for secret in (KEY, "Signature", "Traceback"):
        assert secret not in output


def test_git_does_not_get_the_key(tmp_path: Path) -> None:
    """Git is started with the user's environment without the key."""
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\nenv >>{tmp_path}/environ\nexit 1\n")
    git.chmod(0o755)
    personal_excludes({"PATH": f"{tmp_path}:{os.defpath}", "HOME": "/nowhere", "KLAVIS_API_KEY": KEY})
    environment = (tmp_path / "environ").read_text()
    assert "HOME=/nowhere" in environment
    assert KEY not in environment
