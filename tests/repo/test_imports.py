"""On macOS, where Linux's own names are missing, `--help` answers, and a command says what to use there."""

from __future__ import annotations

import subprocess
import sys

from syncd.core.errors import ExitCode
from tests.repo.sources import REPO, sources

# The names of the standard library that macOS does not have, as far as anything might use them.
LINUX_ONLY = {
    "errno": "EBADFD ENOMEDIUM ENOTUNIQ EREMCHG EUCLEAN",
    "fcntl": "F_ADD_SEALS F_GETPIPE_SZ F_NOTIFY F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_SETLEASE F_SETPIPE_SZ F_SETSIG",
    "os": (
        "EFD_CLOEXEC GRND_NONBLOCK MFD_CLOEXEC O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE XATTR_CREATE"
        " copy_file_range eventfd fdatasync getrandom getresuid getxattr listxattr memfd_create pidfd_open pipe2"
        " posix_fadvise posix_fallocate removexattr sched_getaffinity sched_setaffinity setxattr splice unshare"
    ),
    "resource": "RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_OFILE RLIMIT_RTPRIO RLIMIT_SIGPENDING prlimit",
    "select": "EPOLLERR EPOLLET EPOLLHUP EPOLLIN EPOLLOUT EPOLL_CLOEXEC POLLRDHUP epoll",
    "signal": "SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT sigtimedwait sigwaitinfo",
    "socket": (
        "AF_NETLINK AF_PACKET NETLINK_ROUTE SCM_CREDENTIALS SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED TCP_CORK TCP_INFO"
        " TCP_KEEPIDLE TCP_USER_TIMEOUT"
    ),
    "time": "CLOCK_BOOTTIME CLOCK_TAI",
}
_IMPORT = """\
import importlib, sys
for name, values in {gone}.items():
    module = importlib.import_module(name)
    for value in values.split():
        vars(module).pop(value, None)
for name in {modules}:
    importlib.import_module(name)
"""


def test_each_module_is_imported_without_linux() -> None:
    """Nothing at the top of a module takes a name that only Linux has; what needs one asks for it when it is called."""
    modules = [
        source.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in sources("syncd")
    ]
    modules.remove("syncd.__main__")  # it runs
    code = _IMPORT.format(gone=LINUX_ONLY, modules=modules)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, ""), (
        "the last file of syncd below: use the name that only Linux has inside of the function that needs it"
    )


def test_a_command_elsewhere_says_what_to_use() -> None:
    """A command of another system ends with 78 and one line."""
    code = "import sys; sys.platform = 'darwin'; sys.argv = ['syncd', 'status']; from syncd.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False, timeout=60
    )
    said = "syncd: syncd needs Linux: run it in a Linux virtual machine, with the workspace on its own disk\n"
    assert (run.returncode, run.stdout, run.stderr) == (ExitCode.NEEDS_PERSON, "", said), (
        "syncd/cli/__init__.py: refuse before anything else is imported"
    )
