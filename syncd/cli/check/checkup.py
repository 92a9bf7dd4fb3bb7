"""The checks of `syncd check` in the order of their dependencies, and those of what a person set up here."""

from __future__ import annotations

import heapq
import os
import platform
import re
import shlex
import stat
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from enum import Enum
from importlib.metadata import PackageNotFoundError, requires, version

from msgspec import Struct

from syncd import __version__
from syncd.cli.check.command import Finding, Grade, failed
from syncd.cli.check.sandbox_checks import check_api, check_look, check_route
from syncd.cli.local_scan import LocalScan, brought_in_text, scan_workspace
from syncd.cli.options import CLOCK, config_path, configured
from syncd.cli.service.command import login_advice, report_of, route_advice, service_of
from syncd.cli.status.reader import StatusReader
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key
from syncd.core.clock import stamp
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError, SyncWarning
from syncd.core.hardening import make_undumpable
from syncd.core.settings import Config
from syncd.core.text import counted, few, shown_path, size
from syncd.daemon.build import places_of, selection_of, size_remedy_of
from syncd.daemon.shared_sandbox import refuse_named
from syncd.model.entry import Entry, Kind, count_files
from syncd.model.manifest import Manifest
from syncd.remote.failure import ApiStep
from syncd.scan.exclusions import over_limit
from syncd.scan.scanner import Scan
from syncd.selection.selection import WORKTREEINCLUDE
from syncd.sync.status_document import State, Status
from syncd.watch.inotify_watch import InotifyWatch, instance_limit, watch_limit
from syncd.watch.mounts import filesystem_type, shared_warning, workspace_mounts_of

# For the status, the history and a socket.
_LEAST_SPACE_BYTES = 1 << 20
_AROUND_A_KEY = re.compile(r"""^['"`]|['"`]$|^[A-Z_]+=""")
_SHOWN_WARNINGS = 5
_HEAVIEST = 10
# A folder is named as a whole unless one entry holds this share of it: then the entry is named.
_DOMINANT_SHARE = 0.5
# Entries with a smaller share of all bytes are not named.
_LEAST_SHARE = 0.01
# A snapshot this large will soon be over its limit.
_SIZE_SHARE = 0.8
# Other programs of the same user, editors above all, need watches too.
_WATCHES_SHARE = 0.75
_MIB = 1 << 20


class Checkup:
    """Runs the checks; a failed one stops only those that depend on it. Its attributes are for the report.

    `config`, `status` and `scan` are None until they are known; `secret` is the API key, to be redacted in output.
    """

    def __init__(self, config_file: str | None) -> None:
        self.config: Config | None = None
        self.status: Status | None = None
        self.scan: Scan | None = None
        self.secret = ""
        self._option = config_file
        self._path = config_path(config_file)

    def findings(self) -> Iterator[Finding]:
        """Yield each finding as soon as it is known, so that the first are shown before the network answers."""
        try:
            self.config = config = configured(self._option)
            selection_of(config, os.environ)
        except SyncdError as failure:
            yield failed("configuration", failure)
            return
        yield from check_configuration(config, self._path)
        make_undumpable()
        key = None
        try:
            key = find_key(os.environ, config.sandbox.api_key_file)
            self.secret = key.reveal()
            yield from check_key(key, config.sandbox.api_key_file)
        except SyncdError as failure:
            yield failed("key", failure)
        self.status = status = StatusReader(self._path, config).status()
        self.scan = yield from check_workspace(config, watches=not status.running)
        yield from check_folders(config, self.scan.manifest.content_bytes if self.scan else 0)
        yield check_daemon(status)
        yield from check_service(self._option, config)
        yield from check_route(config.sandbox.base_url)
        if key is None:
            yield Finding("api", Grade.NOTE, "not tested, as there is no key")
        elif (target := (yield from check_api(config, key))) is not None:
            yield check_look(target, config.sandbox.agent_changes, key)


def check_configuration(config: Config, path: str) -> Iterator[Finding]:
    """The part of this machine's administrator, and what conflicts with other configurations."""
    yield Finding("configuration", Grade.PASS, path)
    if (managed := config.managed) is not None:
        narrowed = " and ".join(managed.narrowed)
        remedy = f"take {narrowed} out of {config.file}, or ask this machine's administrator" if narrowed else ""
        yield Finding("managed", Grade.NOTE if narrowed else Grade.PASS, managed.summary(), remedy)
    try:
        refuse_named(config, os.environ)
    except SyncdError as failure:
        yield failed("sandbox", failure)
    yield from _rights_of_others("configuration", path, "go-w", "other users can change the address that gets the key")


def check_key(key: ApiKey, key_file: str) -> Iterator[Finding]:
    """The place of the key, and what is around it there; a service reads the file alone."""
    if key.source.startswith("$"):
        where = f"found in {key.source}"
    else:
        where = f"found in {key.source} (mode {stat.S_IMODE(os.stat(key.source).st_mode):04o})"
    if _AROUND_A_KEY.search(key.reveal()):
        what = f"{where}: quotes, or a variable's name and =, are around it"
        yield Finding("key", Grade.WARN, what, "leave nothing there but the key itself")
    else:
        yield Finding("key", Grade.PASS, where)
    if not key.source.startswith("$"):
        yield from _rights_of_others("key", os.path.dirname(key.source), "go-w", "other users can replace the key")
        return
    with suppress(SyncdError):
        if find_key({}, key_file) != key:
            what = f"{key_file} holds another key, which the service uses"
            remedy = f"if the key in ${KEY_VARIABLE} is the right one, put it into the file"
            yield Finding("key", Grade.NOTE, what, remedy)


def check_workspace(config: Config, *, watches: bool) -> Generator[Finding, None, Scan | None]:
    """Scan the workspace, and try to watch it if `watches`; the scan, None if the workspace cannot be read.

    Where a daemon watches already, more watches would count against the same limit.
    """
    path = config.workspace.path
    try:
        with closing(InotifyWatch(path, CLOCK)) as watch:
            if watches:
                watch.open()
            found = scan_workspace(config, watch if watches else None)
            unwatched = watch.warnings()
    except SyncdError as failure:
        yield failed("directory", failure)
        return None
    manifest = found.scan.manifest
    directories = 1 + sum(entry.kind is Kind.DIRECTORY for entry in manifest.values())  # the workspace among them
    yield _size_finding(config, manifest, directories)
    if manifest.content_bytes >= _MIB and (weights := heaviest(manifest, _HEAVIEST)):
        yield _heaviest_finding(weights, manifest.content_bytes)
    yield from _warnings("directory", found.scan.warnings)
    shared = workspace_mounts_of(path).shared.items()
    included = [shared_warning(place, kind) for place, kind in shared if not place or place in manifest]
    yield from _warnings("directory", included)
    if config.workspace.upload_secrets:
        yield Finding("secrets", Grade.WARN, "sent like other files, as workspace.upload_secrets is true")
    else:
        yield _secrets_finding(found)
    if found.brought_in:
        remedy = f"what must not be sent goes into .syncdignore, which is stronger than {WORKTREEINCLUDE}"
        yield Finding("included", Grade.NOTE, brought_in_text(found.brought_in), remedy)
    yield from _warnings("inotify", unwatched) if unwatched else [_watches_finding(directories)]
    return found.scan


def _size_finding(config: Config, manifest: Manifest, directories: int) -> Finding:
    files, total_bytes, max_mib = count_files(manifest.values()), manifest.content_bytes, config.sync.max_snapshot_mib
    if refusal := over_limit(manifest, max_mib):
        return Finding("directory", Grade.FAIL, refusal, size_remedy_of(config))
    folders = "1 directory" if directories == 1 else f"{directories:,} directories"
    what = f"{counted(files, 'file')} in {folders}, {size(total_bytes)}"
    if not files:
        remedy = "run `syncd ls --ignored`, or correct workspace.path"
        return Finding("directory", Grade.WARN, f"{what}: nothing to send", remedy)
    if total_bytes > _SIZE_SHARE * max_mib * _MIB:
        what += f": near the limit of {max_mib:,} MiB"
        return Finding("directory", Grade.WARN, what, size_remedy_of(config))
    return Finding("directory", Grade.PASS, f"{what}, of {max_mib:,} MiB allowed")


def _heaviest_finding(weights: Sequence[tuple[str, int]], total_bytes: int) -> Finding:
    """The largest files and folders, each as the line of an ignore file that leaves it out."""
    details = tuple(
        f"{size_bytes / total_bytes:4.0%} {size(size_bytes):>11}  {ignore_line(path)}" for path, size_bytes in weights
    )
    share = sum(size_bytes for _, size_bytes in weights) / total_bytes
    what = f"{len(weights)} files or folders hold {share:.0%} of it"
    if len(weights) == 1:
        what = f"one {'folder' if weights[0][0].endswith('/') else 'file'} holds {share:.0%} of it"
    return Finding("largest", Grade.NOTE, what, "to exclude one, put its line into .syncdignore", details)


def heaviest(manifest: Mapping[str, Entry], count: int) -> list[tuple[str, int]]:
    """The largest files and folders with their bytes, none within another, the largest first; at most `count`.

    A folder, which ends with a slash, is replaced by its entries, at any depth, if one of them dominates it.
    """
    inside: dict[str, dict[str, int]] = {"": {}}
    for path, entry in manifest.items():
        below = path if entry.size_bytes else ""
        while below:
            above = below.rstrip("/").rpartition("/")
            folder = "".join(above[:2])
            siblings = inside.setdefault(folder, {})
            siblings[below] = siblings.get(below, 0) + entry.size_bytes
            below = folder
    total_bytes = sum(inside[""].values())
    heap = [(-size_bytes, path) for path, size_bytes in inside[""].items()]
    heapq.heapify(heap)
    found: list[tuple[str, int]] = []
    while heap and len(found) < count:
        negative, path = heapq.heappop(heap)
        children = inside.get(path, {})
        if -negative < _LEAST_SHARE * total_bytes:
            break
        if children and max(children.values()) >= _DOMINANT_SHARE * -negative:
            for child, size_bytes in children.items():
                heapq.heappush(heap, (-size_bytes, child))
        else:
            found.append((path, -negative))
    return found


def ignore_line(path: str) -> str:
    """The line of an ignore file at the top of the workspace that leaves out this path, and hardly any other.

    Characters that a line of text cannot hold become one `?` for each byte.
    """
    line = "".join(
        f"\\{c}" if c in "*?[\\" else c if c.isprintable() else "?" * len(c.encode("utf-8", "surrogateescape"))
        for c in path
    )
    return f"/{line[:-1]}\\ " if line.endswith(" ") else f"/{line}"


def _secrets_finding(found: LocalScan) -> Finding:
    """The paths left out as secrets, each with its rule or line. Those found by content are a warning."""
    by_name = [f"{shown_path(path)}: named like {pattern}" for path, pattern in found.named_like_secrets]
    by_content = [f"{shown_path(path)} holds {secret}" for path, secret in found.secrets.items()]
    number = len(by_name) + len(by_content)
    if not number:
        return Finding("secrets", Grade.PASS, "none found")
    kinds = [f"{len(paths):,} {how}" for paths, how in ((by_content, "by content"), (by_name, "by name")) if paths]
    what = f"{counted(number, 'path')} excluded: {', '.join(kinds)}"
    remedy = "remove the secret, or allow the path in workspace.allow_secrets" if by_content else ""
    details = tuple(few((*by_content, *by_name), number, ": syncd ls --ignored"))
    return Finding("secrets", Grade.WARN if by_content else Grade.NOTE, what, remedy, details)


def _watches_finding(directories: int) -> Finding:
    """Compare one watch for each directory and one instance with this user's limits."""
    (watches, remedy), instances = watch_limit(), instance_limit()
    needed, one = (
        f"{number:,}" if allowed is None else f"{number:,} of {allowed:,}"
        for number, allowed in ((directories, watches), (1, instances))
    )
    what = f"{needed} watches and {one} instances needed"
    if watches is not None and directories > watches:
        return Finding("inotify", Grade.WARN, f"{what}: too many, the rest is polled", remedy)
    if watches is not None and directories > _WATCHES_SHARE * watches:
        return Finding("inotify", Grade.WARN, f"{what}; this user's other programs need some too", remedy)
    return Finding("inotify", Grade.PASS, what)


def _warnings(subject: str, warnings: Sequence[SyncWarning]) -> Iterator[Finding]:
    for warning in warnings[:_SHOWN_WARNINGS]:
        yield Finding(subject, Grade.WARN, warning.what, warning.remedy)
    more = len(warnings) - _SHOWN_WARNINGS
    if more > 0:
        yield Finding(subject, Grade.WARN, f"{more:,} more such", "`syncd status` lists all once it runs")


def check_folders(config: Config, content_bytes: int) -> Iterator[Finding]:
    """The daemon's folders: each is there or can be made, can be written, and has space. None is made.

    The size of the archive is not known in advance: of source code it is about a quarter of `content_bytes`.
    """
    try:
        places = places_of(config, os.environ)
    except SyncdError as failure:
        yield failed("state", failure)
        return
    rows = (("state", "XDG_STATE_HOME", places.state, 0), ("spool", "XDG_CACHE_HOME", places.spool, content_bytes))
    for subject, variable, folder, needed_bytes in rows:
        existing = folder
        while not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        remedy = f"make it writable, or set {variable} to another folder"
        if not os.path.isdir(existing):
            what = f"{folder} cannot be created: {existing} is no folder"
            yield Finding(subject, Grade.FAIL, what, remedy)
            continue
        if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
            what = f"{folder} cannot be written: {existing} is not writable"
            yield Finding(subject, Grade.FAIL, what, remedy)
            continue
        if existing == folder:
            yield from _rights_of_others(subject, folder, "go-rwx", "other users can read it")
        disk = os.statvfs(existing)
        free_bytes = disk.f_bavail * disk.f_frsize
        what = f"{folder} has {size(free_bytes)} free"
        remedy = f"free some disk space, or set {variable} to a larger disk"
        if free_bytes < _LEAST_SPACE_BYTES:
            yield Finding(subject, Grade.FAIL, what, remedy)
        elif free_bytes < needed_bytes:
            what += ", less than the workspace holds: its archive may not fit"
            yield Finding(subject, Grade.WARN, what, remedy)
        else:
            yield Finding(subject, Grade.PASS, what)


def check_daemon(status: Status) -> Finding:
    """The running daemon: it answers, nothing failed, and it has this version."""
    if not status.running:
        return Finding("daemon", Grade.NOTE, "not running; `syncd run` starts it")
    what = f"running as process {status.pid}, {status.state}"
    failures = [status.last_error.message] if status.last_error else []
    failures += status.warnings
    if status.responding is False:
        return Finding("daemon", Grade.WARN, f"process {status.pid} does not answer", "run `syncd status`")
    if failures or status.state is State.HELD:
        remedy = "run `syncd status` to see everything"
        return Finding("daemon", Grade.WARN, "; ".join([what, *failures[:1]]), remedy)
    if status.daemon_version not in (None, __version__):
        what += f"; it is version {status.daemon_version}, this command {__version__}"
        remedy = "restart it: systemctl --user restart syncd, or run `syncd run` anew"
        return Finding("daemon", Grade.WARN, what, remedy)
    return Finding("daemon", Grade.PASS, what)


def check_service(config_file: str | None, config: Config) -> Iterator[Finding]:
    """The systemd unit. A missing one is only a note, as other programs can start `syncd run`."""
    try:
        service = service_of(config_file)
        properties = service.properties()
    except SyncdError as failure:
        yield Finding("service", Grade.NOTE, failure.message)
        return
    now = report_of(service, properties, config.sandbox.api_key_file)
    name = service.unit.name
    if now.state == "not installed":
        yield Finding("service", Grade.NOTE, f"{name} is not installed", f"to start it at every login: {now.remedy}")
        return
    is_well = now.exit_code is ExitCode.DONE and not now.remedy
    what = "; ".join(filter(None, (f"{name}: {now.state}", now.last)))
    yield Finding("service", Grade.PASS if is_well else Grade.WARN, what, now.remedy)
    yield from (Finding("service", Grade.NOTE, *advice) for advice in login_advice(service))
    yield from (Finding("service", Grade.WARN, *advice) for advice in route_advice(service, config, properties))


def _rights_of_others(subject: str, path: str, change: str, harm: str) -> Iterator[Finding]:
    """A warning about a file or folder with rights that `chmod CHANGE` takes away; the sticky bit protects entries."""
    with suppress(OSError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & (0o022 if change == "go-w" else 0o077) and not mode & stat.S_ISVTX:
            what = f"{path} (mode {mode:04o}): {harm}"
            yield Finding(subject, Grade.WARN, what, f"chmod {change} {shlex.quote(path)}")


# -- the report: what is shown of a value is decided by its type: a number, a switch, a choice or a time as it is, of
# all else only if it is set, or how much it holds. So a message, which may name a path or an address, is in no field.

Row = tuple[str, str]

_PUBLIC = frozenset({*ApiStep, "https://api.klavis.ai", "https://api.eu.klavis.ai"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_HEAD = """syncd report, {at}

It holds numbers, times and words of syncd's own: no name, path, address, id, key or message.
Nothing of this was sent anywhere. Read it to the end before you pass it on.
"""


def write_report(named: str, checkup: Checkup, findings: Sequence[Finding]) -> tuple[str, int]:
    """Write the report to a new file: `named`, or one in the home directory. Its path and its number of lines.

    Raises `NeedsPerson` if the file exists, cannot be written, or would be synced.
    """
    workspace = checkup.config.workspace.path if checkup.config else None
    default = os.path.expanduser(f"~/syncd-report-{stamp(CLOCK.wall_s()).replace(':', '')}.txt")
    path = os.path.abspath(named or default)
    if workspace is not None and (os.path.realpath(path) + os.sep).startswith(workspace + os.sep):
        raise NeedsPerson(f"{path} is in the workspace and would be synced", "name a file elsewhere with --report FILE")
    text = _text(checkup, findings)
    try:
        with open(path, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)
    except OSError as failure:
        raise NeedsPerson(
            f"{path} cannot be written ({failure.strerror})", "name another file with --report FILE"
        ) from None
    return path, text.count("\n")


def _text(checkup: Checkup, findings: Sequence[Finding]) -> str:
    config = checkup.config
    scan = checkup.scan
    rows = [*_machine(), *((finding.subject, finding.grade.word) for finding in findings)]
    if config is not None:
        rows += [("file system", filesystem_type(config.workspace.path) or "unknown"), *_facts("configuration", config)]
    if scan is not None:
        kinds = Counter(entry.kind.name.lower() for entry in scan.manifest.values())
        counts = {**kinds, "bytes": scan.manifest.content_bytes, "unread": len(scan.unread)}
        counts |= {f"excluded by {source}": number for source, number in scan.left_out.items()}
        rows += ((f"workspace.{name}", str(number)) for name, number in counts.items())
    if checkup.status is not None:
        rows += _facts("status", checkup.status)
    width = max(len(name) for name, _ in rows)
    return _HEAD.format(at=stamp(CLOCK.wall_s())) + "".join(f"\n{name:{width}}  {text}" for name, text in rows) + "\n"


def _machine() -> Iterator[Row]:
    """Versions and limits."""
    yield "syncd", __version__
    yield "python", f"{platform.python_implementation()} {platform.python_version()}, {sys.getfilesystemencoding()}"
    with suppress(PackageNotFoundError):
        for name in (re.split(r"[^\w-]", each)[0] for each in requires("syncd") or () if "extra ==" not in each):
            yield name, version(name)
    kernel = re.match(r"[0-9.]+", platform.release())
    wsl = ", in WSL" if "microsoft" in platform.release().lower() else ""
    yield "kernel", f"{platform.system()} {kernel[0] if kernel else '?'}{wsl}"
    yield "machine", f"{platform.machine()}, {os.cpu_count()} processors, {watch_limit()[0]} watches"


def _facts(name: str, value: object) -> Iterator[Row]:
    """The value, or each field of a record, as far as it tells no name."""
    if isinstance(value, Struct):
        for field in value.__struct_fields__:
            yield from _facts(f"{name}.{field}", getattr(value, field))
    elif isinstance(value, Enum):
        yield name, str(value.value)
    elif isinstance(value, bool | int | float):
        yield name, str(value).lower()
    elif isinstance(value, str) and (value in _PUBLIC or _TIME.fullmatch(value)):
        yield name, value
    elif isinstance(value, tuple | dict):
        yield name, f"{len(value)} entries"
    else:
        yield name, "set" if value else "not set"
