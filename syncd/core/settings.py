"""The configuration file: every key with its type, its default and its allowed values.

The structs below are the single source of names, defaults and limits. A value that is not allowed is an error of one
line, which names the key, the value and what is allowed; the exit code is 78.
"""

from __future__ import annotations

import ipaddress
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from syncd.core.choices import AgentChanges, ArchiveContent, Deletions, GitThere, Region
from syncd.core.directories import default_key_file, expand_home
from syncd.core.errors import ConfigError
from syncd.core.text import shown_path

_DAY_S = 86_400.0
# A look takes some requests and seconds, and an account may have two requests a second.
_LEAST_FOLLOW_S = 5.0


def _allowed(text: str, **limits: Any) -> Meta:
    return Meta(description=text, **limits)


def _listed(choices: type[StrEnum], word: str) -> str:
    *others, last = (f'"{choice}"' for choice in choices)
    return f"{', '.join(others)} {word} {last}"


PathText = Annotated[str, _allowed("a path in quotes, not empty and without NUL", pattern=r"\A[^\0]+\Z")]
Flag = Annotated[bool, _allowed("true or false")]
Seconds = Annotated[float, _allowed("a number of seconds from 0 to 86400", ge=0, le=_DAY_S)]
PositiveSeconds = Annotated[float, _allowed("a number of seconds, more than 0, at most 86400", gt=0, le=_DAY_S)]
Minutes = Annotated[float, _allowed("a number of minutes, more than 0, at most 10080", gt=0, le=10_080)]
Mebibytes = Annotated[int, _allowed("a whole number of MiB from 1 to 1048576", ge=1, le=1_048_576)]
Rate = Annotated[int, _allowed("a whole number of KiB a second, 0 for no limit", ge=0, le=1 << 30)]
FollowSeconds = Annotated[float, _allowed("0, or a number of seconds from 5 to 600", ge=0, le=600)]
Program = Annotated[tuple[str, ...], _allowed('a list of a program and its arguments, such as ["make", "deps"]')]
SetupSeconds = Annotated[float, _allowed("a number of seconds from 5 to 86400", ge=5, le=_DAY_S)]
Lifetime = Annotated[int, _allowed("a whole number of seconds from 60 to 86400", ge=60, le=86_400)]


# It is part of a URL's path.
SandboxId = Annotated[str, _allowed("the id of a sandbox", pattern=r"[^\s.]")]


class WorkspaceKeys(Struct, frozen=True, kw_only=True):
    """`[workspace]`: the directory, and which of its paths are excluded."""

    path: PathText
    ignore: Annotated[tuple[str, ...], _allowed('a list of patterns, such as ["*.tmp", "/data/"]')] = ()
    use_gitignore: Flag = True
    git: Annotated[GitThere, _allowed(_listed(GitThere, "or"))] = GitThere.BASELINE
    upload_secrets: Flag = False
    allow_secrets: Annotated[tuple[str, ...], _allowed('a list of patterns, such as ["tests/fixtures/*.pem"]')] = ()


class AcquireKeys(Struct, frozen=True, kw_only=True):
    """`[sandbox.acquire]`: the sandbox to acquire where no id is configured."""

    servers: Annotated[tuple[str, ...], _allowed('a list of server names, such as ["filesystem", "git"]')] = (
        "filesystem",
        "git",
        "terminal",
    )
    ttl_seconds: Lifetime = 7200


class SandboxKeys(Struct, frozen=True, kw_only=True):
    """`[sandbox]`: the sandbox that is kept equal to the workspace."""

    id: SandboxId | None = None
    base_url: Annotated[str, _allowed("an https address, or http on this machine's loopback")] = "https://api.klavis.ai"
    region: Annotated[Region, _allowed(_listed(Region, "or"))] = Region.US
    api_key_file: PathText = "~/.config/syncd/api-key"
    deletions: Annotated[Deletions, _allowed(_listed(Deletions, "or"))] = Deletions.MIRROR
    follow_seconds: FollowSeconds = 30.0
    setup: Program = ()
    setup_files: Annotated[tuple[str, ...], _allowed('a list of patterns, such as ["package-lock.json"]')] = ()
    setup_timeout_seconds: SetupSeconds = 900.0
    agent_changes: Annotated[AgentChanges, _allowed(_listed(AgentChanges, "or"))] = AgentChanges.SAVE
    acquire: AcquireKeys | None = None


class SyncKeys(Struct, frozen=True, kw_only=True):
    """`[sync]`: the times of syncs, and limits."""

    debounce_seconds: Seconds = 1.0
    max_wait_seconds: Seconds = 15.0
    rescan_minutes: Minutes = 10.0
    archive: Annotated[ArchiveContent, _allowed(_listed(ArchiveContent, "or"))] = ArchiveContent.AUTO
    on_synced: Program = ()
    max_snapshot_mib: Mebibytes = 2048
    upload_limit_kib_per_second: Rate = 0


class RetryKeys(Struct, frozen=True, kw_only=True):
    """`[retry]`: the delays after temporary failures."""

    first_delay_seconds: PositiveSeconds = 1.0
    max_delay_seconds: PositiveSeconds = 60.0
    give_up_after_seconds: Seconds = 300.0


class NotificationKeys(Struct, frozen=True, kw_only=True):
    """`[notifications]`: notifications on the desktop."""

    desktop: Flag = True


MAIN = "main"
"""The name of the sandbox that `[sandbox]` describes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")


class Config(Struct, frozen=True):
    """A checked configuration: `~` is expanded, the workspace's path is absolute and free of links.

    It is that of one sandbox, of which `sandbox` has the keys; `sandboxes` has those of each by its name, main first.
    """

    file: str
    workspace: WorkspaceKeys
    sandbox: SandboxKeys
    sandboxes: Mapping[str, SandboxKeys]
    sync: SyncKeys
    retry: RetryKeys
    notifications: NotificationKeys
    sandbox_name: str = MAIN
    workspace_link: str = ""  # the absolute path that is written there, if it leads through a link

    def for_sandbox(self, name: str) -> Config:
        """Return the configuration of the sandbox of this name, one of `sandboxes`."""
        return msgspec.structs.replace(self, sandbox=self.sandboxes[name], sandbox_name=name)


SECTIONS: Mapping[str, type[Struct]] = {
    "workspace": WorkspaceKeys,
    "sandbox": SandboxKeys,
    "sync": SyncKeys,
    "retry": RetryKeys,
    "notifications": NotificationKeys,
}


def check_config(raw: Mapping[str, Any], path: str = "") -> Config:
    """Check the content of a TOML file. Raises `ConfigError`."""
    for name in raw:
        if name not in SECTIONS and name != "sandboxes":
            sections = (*SECTIONS, "sandboxes")
            meant = similar(name, sections)
            raise ConfigError(
                f"{shown_path(name)}: unknown section",
                f"{f'did you mean {meant}? ' if meant else ''}allowed are {', '.join(sections)}",
            )
    read = {name: checked_table(name, keys, raw.get(name, {})) for name, keys in SECTIONS.items()}
    _check_program("sync.on_synced", read["sync"].on_synced)
    folder = os.path.dirname(os.path.abspath(path))
    workspace = checked_workspace(read["workspace"].path, folder)
    written = os.path.abspath(os.path.join(folder, expand_home(read["workspace"].path)))
    sandboxes = {name: _checked_sandbox(table, raw_sandbox, folder) for name, table, raw_sandbox in sandbox_tables(raw)}
    _refuse_shared_ids(sandboxes)
    return Config(
        file=path,
        workspace=msgspec.structs.replace(read["workspace"], path=workspace),
        sandbox=sandboxes[MAIN],
        sandboxes=sandboxes,
        sync=read["sync"],
        retry=read["retry"],
        notifications=read["notifications"],
        workspace_link="" if written == workspace else written,
    )


def sandbox_tables(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield the name of each sandbox, that of its table, and its keys: a further one has those of `[sandbox]` too.

    Raises `ConfigError` for what is no table and for a name that is not allowed.
    """
    main = raw.get("sandbox", {})
    yield MAIN, table_of(MAIN), main
    others = raw.get("sandboxes", {})
    if not isinstance(others, dict):
        raise ConfigError(f"sandboxes = {shown_value(others)}: must be tables", "write [sandboxes.NAME]")
    shared = {key: value for key, value in main.items() if key not in _OWN_KEYS} if isinstance(main, dict) else {}
    for name, table in others.items():
        check_name(name)
        yield name, table_of(name), {**shared, **table} if isinstance(table, dict) else table


def table_of(name: str) -> str:
    """Return the name of the table that describes the sandbox of this name."""
    return "sandbox" if name == MAIN else f"sandboxes.{name}"


def check_name(name: str) -> None:
    """Check the name of a further sandbox. Raises `ConfigError`."""
    if name == MAIN or not _NAME.fullmatch(name):
        allowed = f"must be letters, digits and - (not first), at most 63, and not {MAIN!r}, which is [sandbox]"
        raise ConfigError(f"sandboxes.{shown_value(name)}", allowed)


# What tells one sandbox from another, and is no default for all.
_OWN_KEYS = ("id", "acquire")


def _checked_sandbox(table: str, raw: Any, folder: str) -> SandboxKeys:
    """Check the keys of one sandbox; paths become absolute. Raises `ConfigError`."""
    sandbox: SandboxKeys = checked_table(table, SandboxKeys, raw)
    if sandbox.id is None and sandbox.acquire is None:
        raise ConfigError(f"{table}.id is missing", f"name the sandbox's id, or add a [{table}.acquire] table")
    if sandbox.id is not None and sandbox.acquire is not None:
        raise ConfigError(
            f"{table}.id = {shown_value(sandbox.id)}: not together with [{table}.acquire]", "keep one of them"
        )
    if 0 < sandbox.follow_seconds < _LEAST_FOLLOW_S:
        what = f"{table}.follow_seconds = {shown_value(raw['follow_seconds'])}"
        raise ConfigError(what, f"must be {description(FollowSeconds)}")
    _check_program(f"{table}.setup", sandbox.setup)
    is_named = "api_key_file" in raw
    key_file = expand_home(sandbox.api_key_file) if is_named else default_key_file(os.environ)
    base_url = _checked_base_url(f"{table}.base_url", sandbox.base_url)
    return msgspec.structs.replace(sandbox, base_url=base_url, api_key_file=os.path.join(folder, key_file))


def _refuse_shared_ids(sandboxes: Mapping[str, SandboxKeys]) -> None:
    """Raise `ConfigError` if two names have one sandbox: each would take the other's syncs for an agent's changes."""
    names: dict[tuple[str, str], str] = {}
    for name, sandbox in sandboxes.items():
        if sandbox.id is not None and (other := names.setdefault((sandbox.base_url, sandbox.id), name)) != name:
            what = f"sandboxes.{name}.id = {shown_value(sandbox.id)}: {other!r} has that sandbox"
            raise ConfigError(what, "give each name a sandbox of its own")


def checked_table(name: str, keys: type[Struct], raw: Any) -> Any:
    """Check one table of a TOML file. Raises `ConfigError`."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} = {shown_value(raw)}: must be a table", f"write [{name}]")
    types = typing.get_type_hints(keys, include_extras=True)
    values = {}
    for key, value in raw.items():
        if key not in types:
            meant = similar(key, types)
            hint = f"did you mean {meant}? " if meant else ""
            raise ConfigError(
                f"{name}.{shown_path(key)}: unknown key", f"{hint}allowed in [{name}] are {', '.join(types)}"
            )
        if key == "acquire":
            values[key] = checked_table(f"{name}.{key}", AcquireKeys, value)
            continue
        try:
            values[key] = msgspec.convert(value, types[key])
        except msgspec.ValidationError:
            if key == "api_key_file" and isinstance(value, list | dict):
                value = "…"  # noqa: PLW2901 - some write the key in the place of its file
            raise ConfigError(f"{name}.{key} = {shown_value(value)}", f"must be {description(types[key])}") from None
    for field in msgspec.structs.fields(keys):
        if field.required and field.name not in values:
            raise ConfigError(f"{name}.{field.name} is missing", f"add {field.name} = … under [{name}]")
    return keys(**values)


def similar(word: str, known: Iterable[str]) -> str:
    """Return the word of these that was probably meant; empty if none is like it."""
    from difflib import get_close_matches  # noqa: PLC0415 - only when something was mistyped

    return next(iter(get_close_matches(word, list(known), 1)), "")


def description(annotation: Any) -> str:
    """Return what is allowed of a key of this type."""
    for part in (annotation, *typing.get_args(annotation)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.description:
                return meta.description
    return "of another type"


def shown_value(value: Any) -> str:
    """Return a value on one line, nearly as it is written in the file."""
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    text = shown_path(text)
    return text if len(text) <= 80 else text[:77] + "…"


def is_loopback(host: str) -> bool:
    """True if a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_BASE_URL = re.compile(r"(?ia)(https?)://(\[[0-9a-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?((?:/[^?#@\s]*)?)")
# A user with a password, a query, a fragment.
_CREDENTIALS = re.compile(r"(?<=//)[^/]*(?=@)|(?<=[?#]).*", re.DOTALL)
_PORTS = {"https": 443, "http": 80}


def _checked_base_url(key: str, url: str) -> str:
    """Return the API's address that this key names in the one form that it has. Raises `ConfigError`."""
    found = _BASE_URL.fullmatch(url) if url.isascii() and url.isprintable() else None
    what = f"{key} = {shown_value(_CREDENTIALS.sub('…', url))}"
    allowed = "must be an https address such as https://api.klavis.ai, or http on this machine's loopback"
    if found is None or int(found[3] or 0) > 65_535:
        raise ConfigError(what, allowed)
    scheme, host = found[1].lower(), found[2].lower()
    if scheme == "http" and not is_loopback(host.strip("[]")):
        raise ConfigError(f"{what}: plain http would show the API key on the way", allowed)
    port = "" if int(found[3] or _PORTS[scheme]) == _PORTS[scheme] else f":{int(found[3])}"
    return f"{scheme}://{host}{port}{found[4].rstrip('/')}"


def _check_program(key: str, command: tuple[str, ...]) -> None:
    shown = shown_value(list(command))
    if command and not command[0]:
        raise ConfigError(f"{key} = {shown}", "must begin with the program that is to be run")
    if any("\0" in word for word in command):
        raise ConfigError(f"{key} = {shown}", "must be without NUL, which ends an argument")


def checked_workspace(path: str, folder: str) -> str:
    """Return the absolute path without links: a watch on a link would miss changes at its top level."""
    if "\0" in path:
        raise ConfigError(f"workspace.path = {shown_value(path)}", "must be the path of a directory")
    real = os.path.realpath(os.path.join(folder, expand_home(path)))
    home = os.path.realpath(expand_home("~"))
    if os.path.commonpath([real, home]) == real:
        names = {"/": "the root directory", home: "the home directory itself"}
        what = names.get(real, "above your home")
        raise ConfigError(
            f"workspace.path = {shown_value(path)}: is {what}",
            'must be a project\'s directory, such as "~/code/project"',
        )
    return real
