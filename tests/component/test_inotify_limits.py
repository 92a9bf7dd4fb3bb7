"""A watch for which no descriptor is left says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_too_many_open_files_is_not_too_many_instances(tmp_path: Path) -> None:
    """Both are EMFILE, with different remedies."""
    script = (
        "import os, resource, sys\n"
        "from syncd.core.clock import SystemClock\n"
        "from syncd.watch.inotify_watch import InotifyWatch\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "watch, held = InotifyWatch(sys.argv[1], SystemClock()), []\n"
        "try:\n"
        "    while True: held.append(os.dup(2))\n"
        "except OSError: pass\n"
        "watch.open()\n"
        "assert ['ulimit -n' in str(p) for p in watch.warnings()] == [True], watch.warnings()\n"
        "os.close(held.pop())\n"
        "watch.open()\n"
        "assert watch.warnings() == ()\n"
        "watch.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
