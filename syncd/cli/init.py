"""`syncd init`: writes a first configuration, with the example's comments, once the API took it; overwrites nothing."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click

from syncd.cli.config import checked, toml
from syncd.cli.options import interruptible, keeper, named, option_for, shipped, stoppable, typed
from syncd.cli.output import home_relative, text_width, wrapped
from syncd.cli.progress import ProgressDisplay
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key, key_in_file, parse_key
from syncd.core.choices import Region
from syncd.core.config_file import config_files, edits, named_config, parse_toml, read_workspaces
from syncd.core.directories import default_key_file, expand_home, make_folders
from syncd.core.durable_file import new_file
from syncd.core.errors import ConfigError, KeyRefused, SandboxNotFound, SyncdError
from syncd.core.settings import AcquireKeys, Config, SandboxKeys
from syncd.core.text import one_line, shown_path
from syncd.daemon.shared_sandbox import refuse_named

_WIDTH = 79
_SILENT_S = 0.5
_DEFAULTS = SandboxKeys()
# In the place of an answer that is still to come.
_ANY = {"workspace.path": "/any/where", "sandbox.id": "any"}
_ACQUIRED = {f"sandbox.acquire.{name}": getattr(AcquireKeys(), name) for name in ("servers", "ttl_seconds")}
_TABLE = re.compile(r"(?:# )?\[([\w.]+)\]$")
_KEY = re.compile(r"(?:# )?(\w+) = ")

# What makes a workspace with such a file able to run, as each tool's own documentation has it for a fresh checkout.
_SETUPS = {
    "package-lock.json": "npm ci",
    "pnpm-lock.yaml": "pnpm install --frozen-lockfile",
    "yarn.lock": "yarn install --frozen-lockfile",
    "uv.lock": "uv sync --frozen",
    "poetry.lock": "poetry install",
    "requirements.txt": "pip install -r requirements.txt",
    "Cargo.lock": "cargo fetch --locked",
    "go.sum": "go mod download",
    "Gemfile.lock": "bundle install",
}


@click.command("init")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(),
    callback=named,
    help="A file, or NAME in ~/.config/syncd; default: config.",
)
@click.option("--path", metavar="DIR", callback=named, help="The directory to keep in sync.")
@click.option("--id", metavar="ID", callback=named, help="The sandbox's id.")
@click.option("--base-url", metavar="URL", callback=named, help=f"Klavis' address; default: {_DEFAULTS.base_url}.")
@click.option(
    "--region", type=click.Choice([region.value for region in Region]), help="The sandbox's region; default: us."
)
@click.option("--api-key-file", metavar="FILE", callback=named, help="Where the key is, or is to be put.")
@click.option("--no-store-key", is_flag=True, help=f"Do not put ${KEY_VARIABLE} into the key file.")
def command(*, config_file: str | None, path: str | None, no_store_key: bool, **given: str | None) -> None:
    """Write a configuration file with a comment for every key.

    \b
    syncd init                       asks for each value
    syncd init --config site --path ~/code/site --id ID

    With a key it asks Klavis for the sandbox first; if that is refused, nothing is written. Nothing is overwritten. A
    key in $KLAVIS_API_KEY is put into the key file, as a service does not see that variable.
    """
    key_file, usual = given["api_key_file"], default_key_file(os.environ)
    if key_file is None and usual != expand_home(_DEFAULTS.api_key_file):
        key_file = usual  # a service reads the file, and may have another environment
    given["api_key_file"] = key_file and _absolute(key_file)
    values: dict[str, Any] = {f"sandbox.{name}": value for name, value in given.items() if value is not None}
    if path is not None:
        values["workspace.path"] = _absolute(path)
    file = named_config(config_file or "config", os.environ)
    if os.path.lexists(file):
        what = f"{file} is there already and is left as it is"
        raise ConfigError(what, f"{edits(file)}; `syncd init --config NAME` writes another")
    asks = given["id"] is None or path is None
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if asks and not is_terminal:
        raise click.UsageError("--path and --id must be given, as there is no terminal to ask on.")
    with stoppable("written"):
        if asks:
            click.echo(f"This writes {home_relative(file)}.", err=True)
            _say("Enter takes what is in [brackets]. Ctrl-C leaves, and nothing is written.", indent=0)
            click.echo(err=True)
            _ask(values, file)
        text, config = _filled_in(values, file)
        key = _key_to_store(config, is_stored=not no_store_key, is_terminal=is_terminal)
        try_sandbox(config, key)
    if key is not None:
        _write_new(config.sandbox.api_key_file, key.reveal() + "\n", "--api-key-file")
    _write_new(file, text, "--config")
    for line in _next_steps(config, option_for(file)):
        click.echo(line)


def filled(example: str, values: Mapping[str, Any]) -> str:
    """`example` with each `table.key` of `values` set on its own line, and its table's heading not commented out.

    Raises `ConfigError` for a value that TOML cannot hold.
    """
    table = ""
    lines = []
    for line in example.splitlines():
        heading, key = _TABLE.match(line), _KEY.match(line)
        if heading:
            table = heading[1]
            wanted = any(name.rpartition(".")[0] == table for name in values)
            lines.append(f"[{table}]" if wanted else line)
        elif key and (name := f"{table}.{key[1]}") in values:
            lines.append(f"{key[1]} = {toml(values[name], name)}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def with_proposal(text: str, locks: Sequence[str]) -> str:
    """Return the text of a configuration with a set-up for these lock files, commented out."""
    programs = [_SETUPS[each] for each in locks]
    command = shlex.split(programs[0]) if len(programs) == 1 else ["sh", "-c", " && ".join(programs)]
    why = f"# Proposed for {' and '.join(locks)}: take away the # of both keys. It runs code in the sandbox."
    lines = {
        "setup = []": f"{why}\n# setup = {toml(command, 'sandbox.setup')}",
        "setup_files = []": f"# setup_files = {toml(locks, 'sandbox.setup_files')}",
    }
    return "\n".join(lines.get(line, line) for line in text.split("\n"))


def _lock_files(config: Config) -> list[str]:
    """Return the lock files at the top of the workspace."""
    return [name for name in _SETUPS if os.path.isfile(os.path.join(config.workspace.path, name))]


def _filled_in(values: Mapping[str, Any], file: str) -> tuple[str, Config]:
    """The text of the new file, and the configuration that it makes.

    Raises `SyncdError`, also if another configuration has this workspace or sandbox.
    """
    text = filled(shipped("config.example.toml"), values)
    config = checked(parse_toml(text), file)
    if locks := _lock_files(config):
        text = with_proposal(text, locks)
    for other, workspace in read_workspaces(config_files(os.environ))[0].items():
        if workspace == config.workspace.path:
            what = f"{shown_path(other)} syncs {shown_path(workspace)} already"
            raise ConfigError(what, f"{edits(other)}, or name another directory")
    refuse_named(config, os.environ)
    return text, config


def _ask(values: dict[str, Any], file: str) -> None:
    """Ask for what is not in `values` yet, again if an answer is refused, and put it there.

    Raises `SyncdError` for what is there already and is refused, `Stop`, `click.Abort`.
    """
    _filled_in({**_ANY, **values}, file)
    here = _offered(file)
    shown = here and f" [{home_relative(here)}]"
    for name, question, default in (
        ("workspace.path", f"Directory to keep in sync{shown}", here),
        ("sandbox.base_url", f"Klavis' address [{_DEFAULTS.base_url}]", _DEFAULTS.base_url),
        ("sandbox.region", f"Region, {' or '.join(Region)} [{_DEFAULTS.region}]", _DEFAULTS.region),
        ("sandbox.id", "Sandbox id [Enter: acquire one when needed]", ""),
    ):
        while name not in values:
            with interruptible() as waiter:
                answer = typed(f"{question}:", waiter, err=True) or default
            if name == "sandbox.id" and not answer:
                values |= _ACQUIRED
                return
            value = _absolute(answer) if name == "workspace.path" else str(answer)
            try:
                _, config = _filled_in({**_ANY, **values, name: value}, file)
                if name == "workspace.path" and not os.path.isdir(config.workspace.path):
                    what = f"{config.workspace.path} is no directory"
                    raise ConfigError(what, "name one that is there")
            except SyncdError as refusal:
                _say(str(refusal))
            else:
                values[name] = value


def _offered(file: str) -> str:
    """The current directory, if it can be a workspace of its own; else "", as for the home directory."""
    with suppress(SyncdError, OSError):
        here = os.getcwd()
        _filled_in({**_ANY, "workspace.path": here}, file)
        return here
    return ""


def _absolute(path: str) -> str:
    """The path made absolute from the current directory, as the file would read it from its own folder."""
    return path if path.startswith("~") else os.path.abspath(path)


def _say(what: str, indent: int = 2) -> None:
    """Print on stderr what was refused, or is to be known."""
    lines = wrapped(one_line(what, 1000), text_width(sys.stderr, _WIDTH), " " * indent, indent)
    click.echo("\n".join(lines), err=True)


def _key_to_store(config: Config, *, is_stored: bool, is_terminal: bool) -> ApiKey | None:
    """The key for the key file; None if the file exists, if no key is known, or if it is not to be stored.

    Raises `KeyRefused`, `click.Abort`.
    """
    key_file, value = config.sandbox.api_key_file, os.environ.get(KEY_VARIABLE)
    if os.path.lexists(key_file):
        return None
    if value:
        return parse_key(value, f"${KEY_VARIABLE}") if is_stored else None
    if not is_terminal:
        return None
    _say(f"The API key goes into {key_file}, for only you to read.")
    question = "API key (not shown; Enter to do it later)"
    answer = click.prompt(question, "", show_default=False, err=True, hide_input=True)
    return parse_key(answer, "the prompt") if answer else None


def try_sandbox(config: Config, key: ApiKey | None = None) -> None:
    """Ask Klavis for the sandbox, as `syncd check` does, and tell where no answer came. Raises its refusal.

    `key` is the one to be stored; else that which commands would find. Without one nothing is asked.
    """
    key_file = config.sandbox.api_key_file
    if key is None and not os.environ.get(KEY_VARIABLE) and not os.path.lexists(key_file):
        return
    from syncd.cli.check import Checkup, Grade, check_api, check_sandbox  # noqa: PLC0415 - `init --help` needs none

    checkup = Checkup(config)
    checkup.key = key or find_key(os.environ, key_file)
    with ProgressDisplay("trying the key", silent_s=_SILENT_S):
        (answer,) = check_api(checkup)
    if answer.grade is Grade.FAIL_FOR_NOW:
        _say(f"key and sandbox could not be tried: {answer.what}; `syncd check` tries them later")
    try:
        list(check_sandbox(checkup))
    except SandboxNotFound as refusal:
        refusal.hint = "it may have expired; name a living one"
        raise


def _has_the_tried_key(key_file: str) -> bool:
    """False if the key file, which a service reads, has not the key of the variable, which commands here use."""
    value = os.environ.get(KEY_VARIABLE)
    if not value:
        return True
    try:
        return key_in_file(key_file, key_file) == parse_key(value, f"${KEY_VARIABLE}")
    except KeyRefused:
        return False


def _write_new(path: str, text: str, option: str) -> None:
    """Write a new file of mode 0600, in a folder of mode 0700 if that is new; `option` names another.

    Raises `ConfigError`, also if there is one by now.
    """
    try:
        make_folders(os.path.dirname(path), 0o700)
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as failure:
        raise ConfigError(
            f"{path} cannot be written ({failure.strerror})", f"name another file with {option}"
        ) from None
    click.echo(f"wrote {home_relative(path)}")


def _next_steps(config: Config, option: str) -> Iterator[str]:
    """The steps after the configuration is written, the missing ones first; `option` is the ` --config FILE` there."""
    key_file, workspace = config.sandbox.api_key_file, config.workspace.path
    if not os.path.lexists(key_file):
        if os.environ.get(KEY_VARIABLE):
            yield f"\nThe API key comes from ${KEY_VARIABLE}, which a service does not see. For one, make its file:"
        else:
            yield "\nThe API key is still missing. Make its file, and paste the key into it:"
        yield f"  install -m 600 /dev/null {home_relative(shlex.quote(key_file))}"
    elif not _has_the_tried_key(key_file):
        yield f"\n{home_relative(key_file)} has another key, or none that can be used. A service reads"
        yield f"that file, and not ${KEY_VARIABLE}, which was tried: put the key into it."
    if not os.path.isdir(workspace):
        yield f"\nThe directory {home_relative(workspace)} does not exist yet."
    if locks := _lock_files(config):
        yield f"\n{' and '.join(locks)}: the file proposes a set-up of the sandbox, which runs code there only if you"
        yield "take away the # of sandbox.setup."
    yield "\nNext:"
    for verb, what in (
        ("check", "tries all that a sync needs"),
        ("ls", "shows what would be sent"),
        ("push", "sends it once"),
    ):
        yield f"  {f'syncd {verb}{option}':{len(option) + 21}}  {what}"
    yield f"  {keeper(option):{len(option) + 21}}  keeps it in sync from now on"
