"""`syncd init`: writes a first configuration, with the example's comments, once the API took it; overwrites nothing."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec

from syncd.cli.config.command import complete_value
from syncd.cli.init.config_template import filled
from syncd.cli.init.dialog import (
    PROMPT,
    absolute,
    ask_sandbox,
    asked_key,
    complete,
    may_store,
    refuse_taken,
    say,
    tell_overlaps,
    tell_shared_mounts,
)
from syncd.cli.options import CLOCK, keeper, option_for, shipped, stoppable
from syncd.cli.output import home_relative
from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import next_step, push, summary
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key, parse_key
from syncd.core.choices import MANAGED_FILE
from syncd.core.config_file import (
    ConfiguredWorkspace,
    ManagedLayer,
    config_files,
    holding,
    layered,
    named_config,
    read_managed,
    read_workspaces,
)
from syncd.core.directories import default_key_file
from syncd.core.errors import ConfigError, KeyRefused, SandboxNotFound, SyncdError
from syncd.core.settings import SECTIONS, AcquireKeys, Config, SandboxKeys, Text
from syncd.core.text import counted, few, one_line, shown_path, size
from syncd.model.entry import count_files
from syncd.scan.exclusions import largest, over_limit

_PATHS = ("workspace.path", "sandbox.api_key_file", "sandbox.mcp_file")
_TABLES: dict[str, type[msgspec.Struct]] = {**SECTIONS, "sandbox.acquire": AcquireKeys}
_KEYS: dict[str, tuple[msgspec.structs.FieldInfo, Any]] = {
    f"{table}.{field.name}": (field, typing.get_type_hints(keys, include_extras=True)[field.name])
    for table, keys in _TABLES.items()
    for field in msgspec.structs.fields(keys)
    if f"{table}.{field.name}" not in _TABLES
}
# The two that are always needed have a short name, too.
_ALIASES = {"workspace.path": "--path", "sandbox.id": "--id"}
_LARGEST = 3
_SILENT_S = 0.5


def _flag_per_key(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each key of the configuration, in the file's order, named like the key."""
    for name, (field, annotation) in reversed(_KEYS.items()):
        command = _option(name, field, annotation)(command)
    return command


def _option(name: str, field: msgspec.structs.FieldInfo, annotation: Any) -> Callable[..., Any]:
    flag = "--" + name.replace(".", "-").replace("_", "-")
    variable = name.replace(".", "__")
    if isinstance(field.default, bool):
        switch = f"{flag}/--no-{flag[2:]}"
        return click.option(switch, variable, default=None, help=f"{name}; default: {str(field.default).lower()}.")
    names = [flag, *([_ALIASES[name]] if name in _ALIASES else []), variable]
    if isinstance(field.default, tuple):
        return click.option(*names, multiple=True, metavar="TEXT", help=f"{name}: one of the list. Repeatable.")
    allowed = _description(annotation).replace('"', "")
    text = f"{name}: {allowed}" if allowed and allowed != _description(Text) else name
    default = "" if field.default in (msgspec.NODEFAULT, None, "") else f"; default: {field.default}"
    return click.option(
        *names,
        metavar="VALUE",
        shell_complete=lambda _context, _option, incomplete: complete_value(annotation, incomplete),
        help=f"{text}{default}.",
    )


def _description(annotation: Any) -> str:
    """The allowed values, from the key's description."""
    metadata = getattr(annotation, "__metadata__", ())
    return next((meta.description for meta in metadata if isinstance(meta, msgspec.Meta) and meta.description), "")


def _typed(name: str, value: Any) -> Any:
    """A number if the key is a number and the text is one too; the check of the whole reports what is wrong."""
    if name in _PATHS:
        return absolute(value)
    if typing.get_args(_KEYS[name][1])[0] not in (int, float):
        return value
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(value)
            return number if math.isfinite(number) else value
    return value


@click.command("init")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(),
    help="Where to write: a file, or NAME for ~/.config/syncd/NAME.toml. Default: config.toml there; if that exists,"
    " a name is asked for.",
)
@click.option(
    "--store-key/--no-store-key",
    "store_key",
    default=None,
    help=f"Whether the key of ${KEY_VARIABLE} is put into the key file, where a service finds it; default: it is.",
)
@_flag_per_key
def command(config_file: str | None, store_key: bool | None, **flags: Any) -> None:
    """Write a configuration file with a comment for every key.

    On a terminal it asks for what is missing, shows what would be sent, and sends it if you say so. With a key it asks
    the API for the sandbox first; if that is refused, nothing is written. What is already there, a configuration or a
    key, is never overwritten.
    """
    given = {name.replace("__", "."): value for name, value in flags.items() if value not in (None, ())}
    values = {name: _typed(name, value) for name, value in given.items()}
    layer = read_managed()
    managed = layer.values()
    key_file = default_key_file(os.environ)
    if key_file != os.path.expanduser(SandboxKeys().api_key_file) and "sandbox.api_key_file" not in values | managed:
        values["sandbox.api_key_file"] = key_file  # a service reads the file, and may have another environment
    acquires = layer.acquires or any(name.startswith("sandbox.acquire.") for name in values)
    needed = ("workspace.path",) if acquires else ("workspace.path", "sandbox.id")
    missing = [_ALIASES[name] for name in needed if name not in values]
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    path = named_config(config_file or "config", os.environ)
    asks_name = not config_file and bool(missing) and is_terminal and os.path.lexists(path)
    if os.path.lexists(path) and not asks_name:
        raise _exists(path, "--config")
    if missing and not is_terminal:
        raise click.UsageError(f"{' and '.join(missing)} must be given, as there is no terminal to ask on.")
    others, _ = read_workspaces(config_files(os.environ))
    if "workspace.path" in values:
        tell_overlaps(values["workspace.path"], others)
    elif not config_file:
        with contextlib.suppress(OSError):  # the directory was removed
            for other in holding(os.getcwd(), others):
                what = f"{other.file} syncs {other.path} already, where this is"
                raise ConfigError(what, "edit it, or name another with --path")
    with stoppable("written"):
        if missing:
            path = complete(values, None if asks_name else path, others, layer)
        text, config = _filled_in(values, path, layer, others)
        tell_shared_mounts(config.workspace.path)
        key = _key_to_store(config, store_key, is_terminal=is_terminal, asks=bool(missing))
        while refusal := _refusal(config, key):
            if isinstance(refusal, KeyRefused) and key is not None and key.source == PROMPT:
                say(str(refusal))
                key = asked_key(config.sandbox.api_key_file)
            elif isinstance(refusal, SandboxNotFound) and "--id" in missing:
                say(str(refusal))
                del values["sandbox.id"]
                ask_sandbox(values, layer)
                text, config = _filled_in(values, path, layer, others)
            else:
                raise refusal
    if key is not None:
        _write_new(config.sandbox.api_key_file, key.reveal() + "\n", "--sandbox-api-key-file")
    _write_new(path, text, "--config")
    option = option_for(path)
    if not (missing and _sent(config, option)):
        for line in _next_steps(config, option):
            click.echo(line)


def _filled_in(
    values: dict[str, Any], path: str, layer: ManagedLayer, others: Sequence[ConfiguredWorkspace]
) -> tuple[str, Config]:
    """Return the text of the new file, and the configuration that it makes. Raises `ConfigError`."""
    managed = layer.values()
    text = filled(shipped("config.example.toml"), values, managed)
    if managed:
        text = f"# A key that is commented out here and stands in {MANAGED_FILE} has its value from there.\n{text}"
    config = layered(tomllib.loads(text), path, layer)
    refuse_taken(config, others)
    return text, config


def _refusal(config: Config, key: ApiKey | None) -> SyncdError | None:
    """Ask the API for the sandbox, or for the list of them; returns its refusal, and tells where no answer came.

    `key` is the one to be stored; else that which commands would find. Without one nothing is asked.
    """
    sandbox = config.sandbox
    if key is None and not os.environ.get(KEY_VARIABLE) and not os.path.lexists(sandbox.api_key_file):
        return None
    # `init --help` needs none of these.
    from syncd.core.interrupt import Interrupt  # noqa: PLC0415
    from syncd.core.waiter import Waiter  # noqa: PLC0415
    from syncd.remote.api import Account, Api  # noqa: PLC0415
    from syncd.remote.failure import FailureAction, StepFailed  # noqa: PLC0415
    from syncd.remote.http_client import HttpClient  # noqa: PLC0415
    from syncd.remote.target import Target  # noqa: PLC0415

    client = HttpClient(Waiter(Interrupt(), CLOCK))
    try:
        key = key or find_key(os.environ, sandbox.api_key_file)
        with ProgressDisplay(silent_s=_SILENT_S) as progress:
            progress.doing("trying the key")
            if sandbox.id is None:
                Account(sandbox.base_url, key, client, CLOCK).count()
            else:
                Api(Target(sandbox.base_url, sandbox.id, sandbox.region), key, client, CLOCK).sandbox()
    except KeyRefused as refusal:
        return refusal
    except StepFailed as failure:
        if failure.action is FailureAction.REFUSED:
            return failure.as_error()
        say(f"key and sandbox could not be tried: {failure.message}; `syncd check` tries them later")
    finally:
        client.drop()
    return None


def _key_to_store(config: Config, store_key: bool | None, *, is_terminal: bool, asks: bool) -> ApiKey | None:
    """The key for the key file; None if the file exists, if no key is known, or if it is not to be stored.

    A service does not see the person's environment: the key is stored by default, so that the next step works.
    """
    key_file = config.sandbox.api_key_file
    if os.path.lexists(key_file):
        return None
    value = os.environ.get(KEY_VARIABLE)
    if not value:
        return asked_key(key_file) if is_terminal else None
    key = parse_key(value, f"${KEY_VARIABLE}")
    if store_key is None and asks:
        store_key = may_store(key_file)
    return None if store_key is False else key


def _write_new(path: str, text: str, option: str) -> None:
    """Write a new file of mode 0600, in a folder of mode 0700 if that is new; `option` names another.

    Raises `ConfigError`, also if there is a file already.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                os.unlink(path)  # half a file is worse than none
                raise
    except OSError as failure:
        if isinstance(failure, FileExistsError) and os.path.lexists(path):
            raise _exists(path, option) from None
        raise ConfigError(
            f"{path} cannot be written ({failure.strerror})", f"name another file with {option}"
        ) from None
    click.echo(f"wrote {home_relative(path)}")


def _exists(path: str, option: str) -> ConfigError:
    return ConfigError(f"{path} is there already and is left as it is", f"edit it, or name another with {option}")


def _sent(config: Config, option: str) -> bool:
    """Show what would be sent, ask, and send it if the answer is yes."""
    try:
        can_be_sent = _show_preview(config, option)
        find_key(os.environ, config.sandbox.api_key_file)
        if not can_be_sent:
            return False
        click.echo()
        if not click.confirm("Send it now?", default=False, err=True):
            return False
    except KeyRefused:
        return False
    except SyncdError as failure:
        click.echo(f"\n{one_line(str(failure), 1000)}", err=True)
        return False
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nNothing was sent.", err=True)
        return False
    result, _ = push(config, force=False)
    click.echo(summary(result))
    click.echo(next_step(option))
    return True


def _show_preview(config: Config, option: str) -> bool:
    """Scan the workspace as a sync would, and print what it finds. True if there is something that can be sent.

    `option` is the option that `syncd ls` needs. Raises `SyncdError`.
    """
    from syncd.cli.local_scan import scan_workspace  # noqa: PLC0415 - `init --help` needs none of it

    with ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        found = scan_workspace(config)
    manifest, left_out = found.scan.manifest, found.left_out_count + len(found.scan.unread)
    secrets = [f"{shown_path(path)}: by its name" for path, _ in found.named_like_secrets]
    secrets += [f"{shown_path(path)}: {secret}" for path, secret in found.secrets.items()]
    files, whole = counted(count_files(manifest.values()), "file"), size(manifest.content_bytes)
    is_too_large = over_limit(manifest, config.sync.max_snapshot_mib) is not None
    click.echo()
    click.secho(f"What a sync would send of {home_relative(config.workspace.path)}", bold=True)
    click.echo(
        f"  {files}, {whole} before compression" if manifest else "  nothing: no file is there, or all are excluded"
    )
    if is_too_large:
        click.echo(f"  {click.style('too large', fg='red')}: raise sync.max_snapshot_mib, or exclude something")
        for path, size_bytes in largest(manifest, _LARGEST):
            click.echo(f"    {size(size_bytes)}  {shown_path(path)}")
    if left_out:
        click.echo(f"  {counted(left_out, 'more path')} excluded (a folder counts once, with all that is in it)")
    if secrets:
        click.echo(f"  {click.style('looks like a secret', fg='yellow')}, and is excluded:")
        for line in few(secrets, len(secrets)):
            click.echo(f"    {line}")
    click.echo(f"  all of it: `syncd ls{option}`, `syncd ls --ignored{option}`")
    return bool(manifest) and not is_too_large


def _next_steps(config: Config, option: str) -> Iterator[str]:
    """The steps after the configuration is written, the missing ones first; `option` is the ` --config FILE` there."""
    key_file, workspace = config.sandbox.api_key_file, config.workspace.path
    if not os.path.lexists(key_file) and os.environ.get(KEY_VARIABLE):
        yield f"\nThe API key comes from ${KEY_VARIABLE}. A service does not see that; for one,"
        yield f"put it into {home_relative(key_file)}, mode 0600."
    elif not os.path.lexists(key_file):
        yield "\nThe API key is still missing. Make its file, and paste the key into it:"
        yield f"  install -m 600 /dev/null {home_relative(shlex.quote(key_file))}"
    if not os.path.isdir(workspace):
        yield f"\nThe directory {home_relative(workspace)} does not exist yet."
    yield "\nNext:"
    yield f"  syncd check{option}            tries all that a sync needs"
    yield f"  syncd ls{option}               shows what would be sent"
    yield f"  syncd push{option}             sends it once"
    yield f"  {keeper(option):{len(option) + 21}}  keeps it in sync from now on"
