"""`syncd init`: writes a first configuration, with the example's comments, once the API took it; overwrites nothing."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import shutil
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click
import msgspec

from syncd.cli.config import PATHS, checked, complete_value, filled, toml
from syncd.cli.layout import wrapped
from syncd.cli.options import CLOCK, asking, confirmed, keeper, named, option_for, shipped, stoppable, typed
from syncd.cli.output import home_relative
from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import next_step, push, summary
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key, parse_key
from syncd.core.choices import MANAGED_FILE, Region
from syncd.core.config_file import (
    ConfiguredWorkspace,
    ManagedLayer,
    config_files,
    config_name,
    holding,
    is_within,
    named_config,
    overlapping,
    parse_toml,
    read_managed,
    read_workspaces,
)
from syncd.core.directories import default_key_file, expand_home, make_folders
from syncd.core.errors import ConfigError, KeyRefused, SandboxNotFound, Stop, SyncdError
from syncd.core.settings import AcquireKeys, Config, SandboxKeys, Text, check_config, description, known_keys
from syncd.core.text import one_line, shown_path
from syncd.daemon.shared_sandbox import others_naming, refuse_named

_WIDTH = 79
# Accounts of the EU have an address of their own.
_EU_URL = "https://api.eu.klavis.ai"
_REGIONS = {
    "us": {"sandbox.region": Region.US.value},
    "eu": {"sandbox.region": Region.US.value, "sandbox.base_url": _EU_URL},
    "asia": {"sandbox.region": Region.ASIA.value},
}
# Where a typed key comes from.
PROMPT = "the prompt"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")

Checked = TypeVar("Checked")


def complete(
    values: dict[str, Any], path: str | None, others: Sequence[ConfiguredWorkspace], layer: ManagedLayer
) -> str:
    """Ask for what is required and not in `values`, and for the file's name if `path` is None; returns the file.

    `others` are the workspaces that have a configuration. What the managed file gives is not asked for. Raises
    `click.Abort`.
    """
    given = layer.values()
    where = "a configuration for one more workspace" if path is None else home_relative(path)
    click.echo(f"This writes {where}.", err=True)
    click.echo("Enter takes what is in [brackets]. Ctrl-C leaves, and nothing is written.\n", err=True)
    if "workspace.path" not in values:
        offered = _offered_path(others)
        ask = "Directory to keep in the sandbox" + ("" if offered is None else f" [{home_relative(offered)}]")
        values["workspace.path"] = _answer(ask, lambda answer: _workspace(answer, others), offered)
        tell_overlaps(values["workspace.path"], others)
    if path is None:
        taken = [config_name(file) for file in config_files(os.environ)]
        offered = _name_for(_real(values["workspace.path"]), taken)
        name = _answer(f"Name of its configuration [{offered}]", lambda answer: _checked_name(answer, taken), offered)
        path = named_config(name, os.environ)
    ask_sandbox(values, layer)
    if "sandbox.region" not in values | given:
        is_open = "sandbox.base_url" not in values | given and layer.allows_base_url(_EU_URL)
        regions = {name: keys for name, keys in _REGIONS.items() if is_open or name != "eu"}

        def checked(answer: str) -> str:
            if answer not in regions:
                raise ConfigError(f'"{answer}" is no region', f"name one of {', '.join(regions)}")
            return answer

        values |= regions[_answer(f"Region ({', '.join(regions)}) [{Region.US}]", checked, Region.US)]
    return path


def ask_sandbox(values: dict[str, Any], layer: ManagedLayer) -> None:
    """Ask for the sandbox, or whether to acquire one, if `values` have neither. Raises `click.Abort`."""
    if "sandbox.id" not in values and not any(name.startswith("sandbox.acquire.") for name in values):
        base_url = (values | layer.values()).get("sandbox.base_url")
        named = _answer("Sandbox id [Enter: acquire one when needed]", lambda answer: _sandbox(answer, base_url), "")
        if named:
            values["sandbox.id"] = named
        elif not layer.acquires:
            keys = AcquireKeys()
            values |= {"sandbox.acquire.servers": keys.servers, "sandbox.acquire.ttl_seconds": keys.ttl_seconds}


def asked_key(key_file: str) -> ApiKey | None:
    """The key that a person typed; None if there was none. Raises `click.Abort`."""
    click.echo(f"The API key goes into {home_relative(key_file)}, for only you to read.", err=True)
    ask = "API key (not shown; Enter to do it later)"
    return _answer(ask, lambda typed: parse_key(typed, PROMPT) if typed else None, "", hide_input=True)


def refuse_taken(config: Config, others: Sequence[ConfiguredWorkspace]) -> None:
    """Raise `ConfigError` if another configuration has this workspace or sandbox, or another syncd syncs to it."""
    _refuse_same(config.workspace.path, others)
    for other in others_naming(config, os.environ):
        raise ConfigError(
            f"{shown_path(other.file)} has the sandbox {config.sandbox.id} already", "edit it, or name another sandbox"
        )
    refuse_named(config, os.environ)


def tell_overlaps(workspace: str, others: Sequence[ConfiguredWorkspace]) -> None:
    """Say on stderr what it means that this workspace is inside another, or around one."""
    workspace = _real(workspace)
    for other in overlapping(workspace, others):
        name, path = os.path.basename(other.file), shown_path(other.path)
        if other.path != workspace and is_within(workspace, other.path):
            pattern = shown_path(os.path.relpath(workspace, other.path))
            say(f'it is inside {path}, and {name} syncs it as well, unless workspace.ignore there has "/{pattern}/"')
        elif other.path != workspace:
            pattern = shown_path(os.path.relpath(other.path, workspace))
            say(f'{path} of {name} is inside it, and is synced twice, unless workspace.ignore here has "/{pattern}/"')


def absolute(path: Any) -> Any:
    """The path made absolute from the current directory, as the file would read it from its own folder."""
    return path if not isinstance(path, str) or path.startswith("~") or not path else os.path.abspath(path)


def _real(path: str) -> str:
    return os.path.realpath(expand_home(path))


def _answer(
    question: str, check: Callable[[str], Checked], default: str | None, *, hide_input: bool = False
) -> Checked:
    while True:
        try:
            if hide_input:
                return check(click.prompt(question, default=default, show_default=False, err=True, hide_input=True))
            with asking() as waiter:
                answer = typed(f"{question}:", waiter, err=True) or default
            if answer is not None:
                return check(answer)
        except SyncdError as failure:
            say(str(failure))
        except UnicodeDecodeError:
            say("that is not UTF-8, and a configuration file can hold nothing else")


def say(why: str) -> None:
    """Print on stderr what was refused, or is to be known."""
    width = min(shutil.get_terminal_size().columns - 1, _WIDTH)
    click.echo("\n".join(wrapped(one_line(why, 1000), width, "  ", 2)), err=True)


def _workspace(answer: str, others: Sequence[ConfiguredWorkspace]) -> str:
    """The answer as the file will hold it. Raises `SyncdError`."""
    from syncd.daemon.build import places_of  # noqa: PLC0415 - `init --help` needs none of it

    path: str = absolute(answer.strip())
    toml(path, "workspace.path")
    config = check_config({"workspace": {"path": path}, "sandbox": {"id": "any"}})
    places_of(config, os.environ)
    if not os.path.isdir(config.workspace.path):
        what = "is no directory" if os.path.lexists(config.workspace.path) else "does not exist"
        raise ConfigError(f"{home_relative(config.workspace.path)} {what}", "name one that is there")
    _refuse_same(config.workspace.path, others)
    return path


def _refuse_same(workspace: str, others: Sequence[ConfiguredWorkspace]) -> None:
    for other in others:
        if other.path == workspace:
            raise ConfigError(
                f"{shown_path(other.file)} syncs {shown_path(workspace)} already", "edit it, or name another directory"
            )


def _sandbox(answer: str, base_url: str | None) -> str:
    answer = answer.strip()
    toml(answer, "sandbox.id")
    if answer:
        sandbox = {"id": answer} if base_url is None else {"id": answer, "base_url": base_url}
        refuse_taken(check_config({"workspace": {"path": "/any/where"}, "sandbox": sandbox}), ())
    return answer


def _offered_path(others: Sequence[ConfiguredWorkspace]) -> str | None:
    """The current directory, unless it is in a configured workspace, or is refused as the home directory is."""
    with contextlib.suppress(SyncdError, OSError):
        here = os.getcwd()
        return None if holding(here, others) else _workspace(here, others)
    return None


def _name_for(workspace: str, taken: Sequence[str]) -> str:
    """A name for the configuration of this workspace that no other one has."""
    stem = _NOT_IN_NAMES.sub("-", os.path.basename(workspace)).strip("-.") or "workspace"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _checked_name(name: str, taken: Sequence[str]) -> str:
    """The name of a new configuration. Raises `ConfigError`."""
    name = name.strip().removesuffix(".toml")
    if not name.strip(".") or _NOT_IN_NAMES.search(name):
        raise ConfigError(
            f"{name!r} cannot be its name", "use letters, digits, '.', '_' and '-', as it is the service's name too"
        )
    if name in taken:
        raise ConfigError(f"there is a configuration {name} already", "choose another name")
    return name


_KEYS = known_keys()
# The two that are always needed have a short name, too.
_ALIASES = {"workspace.path": "--path", "sandbox.id": "--id"}
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
    allowed = description(annotation).replace('"', "")
    text = f"{name}: {allowed}" if allowed != description(Text) else name
    default = "" if field.default in (msgspec.NODEFAULT, None, "") else f"; default: {field.default}"
    return click.option(
        *names,
        metavar="VALUE",
        shell_complete=lambda _context, _option, incomplete: complete_value(annotation, incomplete),
        help=f"{text}{default}.",
    )


def _typed(name: str, value: Any) -> Any:
    """A number if the key is a number and the text is one too; the check of the whole reports what is wrong."""
    if name.endswith(PATHS):
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
    callback=named,
    help="Where to write: a file, or NAME for ~/.config/syncd/NAME.toml. Default: config.toml there; if that exists,"
    " a name is asked for.",
)
@click.option(
    "--store-key/--no-store-key",
    "store_key",
    default=True,
    help=f"Whether the key of ${KEY_VARIABLE} is put into the key file, where a service finds it; default: it is.",
)
@_flag_per_key
def command(config_file: str | None, store_key: bool, **flags: Any) -> None:
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
    if key_file != expand_home(SandboxKeys().api_key_file) and "sandbox.api_key_file" not in values | managed:
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
        key = _key_to_store(config, store_key=store_key, is_terminal=is_terminal)
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
    config = checked(parse_toml(text), path)
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
    from syncd.core.waiter import Interrupt, Waiter  # noqa: PLC0415
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


def _key_to_store(config: Config, *, store_key: bool, is_terminal: bool) -> ApiKey | None:
    """The key for the key file; None if the file exists, if no key is known, or if it is not to be stored.

    A service does not see the person's environment: the key is stored by default, so that the next step works.
    """
    key_file, value = config.sandbox.api_key_file, os.environ.get(KEY_VARIABLE)
    if os.path.lexists(key_file):
        return None
    if not value:
        return asked_key(key_file) if is_terminal else None
    return parse_key(value, f"${KEY_VARIABLE}") if store_key else None


def _write_new(path: str, text: str, option: str) -> None:
    """Write a new file of mode 0600, in a folder of mode 0700 if that is new; `option` names another.

    Raises `ConfigError`, also if there is a file already.
    """
    try:
        make_folders(os.path.dirname(path), 0o700)
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
        with asking() as waiter:
            if not (can_be_sent and confirmed("\nSend it now?", waiter, err=True)):
                return False
    except KeyRefused:
        return False
    except (click.Abort, KeyboardInterrupt, Stop):
        click.echo("\nNothing was sent.", err=True)
        return False
    result, _ = push(config, force=False)
    click.echo(summary(result))
    click.echo(next_step(option))
    return True


def _show_preview(config: Config, option: str) -> bool:
    """Print what `syncd check` finds of the workspace. True if it can be sent; `option` is what `syncd ls` needs."""
    from syncd.cli.check import finding_lines, printable  # noqa: PLC0415 - `init --help` needs none of it
    from syncd.cli.check.checkup import check_workspace  # noqa: PLC0415

    with ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        findings = [*check_workspace(config, watches=True)]
    click.secho(f"\nWhat a sync would send of {home_relative(config.workspace.path)}", bold=True)
    for finding in findings:
        click.echo("\n".join(finding_lines(printable(finding))))
    click.echo(f"all of it: `syncd ls{option}`, `syncd ls --ignored{option}`")
    return not any(finding.grade.exit_code for finding in findings)


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
