"""Options that several commands share, and the configuration that a command works with."""

from __future__ import annotations

import os
import select
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

import syncd
from syncd.cli.output import print_error
from syncd.core.clock import SystemClock
from syncd.core.config_file import FoundConfig, config_files, config_name, find_config, load_config, named_config
from syncd.core.directories import default_config_path, directories_for
from syncd.core.errors import ConfigError, NeedsPerson, Stop, SyncdError, TryLater
from syncd.core.settings import Config, check_config
from syncd.core.signals import Interrupt, interrupting
from syncd.core.text import for_sandbox, shown_path
from syncd.core.waiter import Waiter

if TYPE_CHECKING:
    from syncd.sync.status_document import Status

CLOCK = SystemClock()
BOOTED_BY_SYSTEMD = "/run/systemd/system"  # sd_booted(3): it exists if systemd is process 1
_FOUND, _TOLD, _SANDBOX, _DONE = (
    f"{__name__}.{each}" for each in ("found", "told", "sandbox", "done")
)  # in the context of click


def named(context: click.Context, option: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001 - click's signature
    """The name of a configuration, not empty: the unset variable of a script does not mean that of this directory."""
    if value == "":
        raise click.BadParameter("It is empty.")
    return value


config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(),
    callback=named,
    help="A file, or NAME in ~/.config/syncd.",
)

sandbox_option = click.option("--sandbox", metavar="NAME", help="One of several; the first is main.")
no_setup_option = click.option("--no-setup", is_flag=True, help="Do not wait for `sandbox.setup`.")
all_option = click.option("--all", "all_sandboxes", is_flag=True, help="Each sandbox of the workspace.")
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts: JSON on stdout.")


def sandbox_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--sandbox`, `--json` and `--config`, of each command about what one sandbox has."""
    return sandbox_option(json_option(config_option(command)))


def config_path(config_file: str | None, warn: Callable[[str], None] | None = None) -> str:
    """The file that `--config` names; else the one whose workspace holds the current directory; else `config.toml`.

    Tells on a terminal which one it is, but for `config.toml` in its own workspace, and `warn`, or stderr, of files
    that could not be read where none holds the directory. Raises `ConfigError` if two configurations hold it.
    """
    if config_file:
        return named_config(config_file, os.environ)
    found = _found_here()
    told = _memory()
    if _TOLD not in told:
        told[_TOLD] = True
        for failure in found.unread:
            (warn or print_error)(f"{failure}; this configuration is passed over")
        is_usual = found.holds_it and found.file == os.path.abspath(default_config_path(os.environ))
        if not is_usual and sys.stderr.isatty() and os.path.lexists(found.file):
            print_error(f"the configuration is {found.file}")
    return found.file


def refuse_elsewhere(config_file: str | None) -> None:
    """Refuse to write into a workspace that neither `--config` names nor the current directory is in.

    Raises `click.UsageError`, and `ConfigError` for a `config.toml` that cannot be read.
    """
    if config_file is not None or (found := _found_here()).holds_it:
        return
    hint = "run `syncd init`"
    if os.path.lexists(found.file):
        workspace = load_config(found.file).workspace.path
        hint = f"run `cd {shlex.quote(workspace)}`, or name it with `--config {config_name(found.file)}`"
    raise click.UsageError(f"The current directory is in no workspace; {hint}.")


def configured(config_file: str | None) -> Config:
    """The configuration. Raises `ConfigError`."""
    path = config_path(config_file)
    if config_file and "/" not in config_file and not os.path.lexists(path):
        raise ConfigError(f"no configuration file at {path}", _others(config_file))
    return load_for_command(path)


def configured_for(config_file: str | None, sandbox: str | None) -> Config:
    """The configuration of the sandbox of that name, or of the only one.

    Raises `ConfigError`, and `click.UsageError`, which names all, where there are several and none is meant.
    """
    config = configured(config_file)
    if sandbox is None and len(config.sandboxes) > 1:
        names = ", ".join(config.sandboxes)
        raise click.UsageError(f"This workspace has several sandboxes ({names}); name one with --sandbox.")
    return of_sandbox(config, sandbox)


def configured_for_each(config_file: str | None, sandbox: str | None, all_sandboxes: bool) -> list[Config]:
    """The configurations of all sandboxes with `--all`, else of one, as `configured_for`."""
    if not all_sandboxes:
        return [configured_for(config_file, sandbox)]
    if sandbox is not None:
        raise click.UsageError("--all goes without --sandbox.")
    config = configured(config_file)
    return [config.for_sandbox(name) for name in config.sandboxes]


def of_sandbox(config: Config, sandbox: str | None) -> Config:
    """The configuration of the sandbox of that name, as it is without one. Raises `click.UsageError`."""
    if sandbox is None:
        return config
    if sandbox not in config.sandboxes:
        names = ", ".join(config.sandboxes)
        raise click.UsageError(f"{sandbox!r} is no sandbox of this workspace; it has {names}.")
    if len(config.sandboxes) > 1:
        _memory()[_SANDBOX] = sandbox
    return config.for_sandbox(sandbox)


def hinted(text: str) -> str:
    """The text with commands as they have to be typed: where there are several sandboxes, with that of this command."""
    name = _memory().get(_SANDBOX)
    return for_sandbox(text, name) if name else text


def load_for_command(path: str) -> Config:
    """The configuration with the workspace that its running daemon has.

    That is no other for a link that moved, or that was put in its place since.

    Raises `ConfigError`.
    """
    config = load_config(path)
    if not config.workspace_link:
        return config
    link, now = shown_path(config.workspace_link), config.workspace.path
    path = next((each.workspace for each in _running() if link in (each.workspace, each.workspace_link)), now)
    if path == shown_path(now):  # the same: a status escapes odd paths, which are no paths then
        return config
    return replace(config, workspace=replace(config.workspace, path=path))


def _running() -> Iterator[Status]:
    """The status of each running daemon of this user."""
    from syncd.report.status_store import running_daemons  # noqa: PLC0415 - where the file does not tell

    return running_daemons(os.path.dirname(directories_for("/any", os.environ).state))


def config_of_daemon(path: str) -> Config | None:
    """As much of the running daemon's configuration as it takes to find it; None if none runs with this file.

    For a file that names another workspace since, or that is no configuration any more.
    """
    status = next((status for status in _running() if status.config == shown_path(os.path.abspath(path))), None)
    if status is None:
        return None
    sandbox: dict[str, object] = {"id": status.main.id} if status.main.id else {"acquire": {}}
    where = {"base_url": status.main.base_url, "region": status.main.region}
    return check_config({"workspace": {"path": status.workspace}, "sandbox": {**sandbox, **where}}, path)


def named_paths(config: Config, paths: Iterable[str]) -> frozenset[str]:
    """The PATHs of a command line, relative to the workspace. Raises `click.UsageError` for one outside, or empty."""
    if "" in paths:  # an unset variable of a script is no wish for the whole folder
        raise click.UsageError("A PATH is empty.")
    return frozenset(_in_workspace(config.workspace.path, path) for path in paths)


def _in_workspace(workspace: str, path: str) -> str:
    """One relative to the workspace; a link as its last component is not followed."""
    absolute = os.path.abspath(path)
    real = os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute))
    for candidate in (absolute, real, os.path.realpath(absolute)):
        if f"{candidate}/".startswith(f"{workspace}/"):
            return candidate[len(workspace) + 1 :]
    raise click.UsageError(f"{shown_path(path)} is not in the workspace {workspace}; name a path below it.")


@contextmanager
def stoppable(what: str = "changed") -> Iterator[None]:
    """Turn a stop by a person or a signal into one line, which says that nothing was changed, pulled or the like.

    Errors get their hints as `hinted` has them.
    """
    try:
        yield
    except SyncdError as failure:
        failure.hint = hinted(failure.hint)
        raise
    except (Stop, KeyboardInterrupt, click.Abort):
        done, hint = _memory().get(_DONE, (f"nothing was {what}", "the same command begins anew"))
        raise TryLater(f"stopped; {done}", hint) from None


def note_done(what: str, hint: str) -> None:
    """Have `stoppable` say this of a stop from now on, as something was changed."""
    _memory()[_DONE] = what, hint


def answered(question: str, answers: Collection[str], waiter: Waiter, *, err: bool = False) -> str:
    """Return the one of these answers that a person gives, at a terminal.

    Raises `Stop`, `click.Abort` at the end of the input.
    """
    while (word := typed(question, waiter, err=err).lower()) not in answers:
        click.echo("Error: invalid input", err=err)
    return word


def typed(question: str, waiter: Waiter, *, err: bool = False) -> str:
    """Return the line that a person types, whatever its bytes. Raises `Stop`, `click.Abort` at the end of the input.

    `input()` loses a signal that comes while it writes the question, where that goes to stderr.
    """
    click.echo(f"{question} ", nl=False, err=err)
    try:
        waiter.wait_ready(sys.stdin.fileno(), select.POLLIN, inf)  # a line is complete
        if line := sys.stdin.buffer.readline():
            return os.fsdecode(line).strip()
    except Stop:
        click.echo(err=err)  # what is said of it is no answer to the question
        raise
    click.echo(err=err)
    raise click.Abort


@contextmanager
def interruptible() -> Iterator[Waiter]:
    """The waiter of a command, whose waits a signal ends with `Stop`."""
    with interrupting(interrupt := Interrupt()):
        yield Waiter(interrupt, CLOCK)


def confirmed(question: str, waiter: Waiter, *, err: bool = False) -> bool:
    """True if a person answers yes, at a terminal. Raises as `answered` does."""
    return answered(f"{question} [y/N]:", ("y", "yes", "n", "no", ""), waiter, err=err) in ("y", "yes")


def refuse_workspace(config: Config, destination: str) -> None:
    """Raise `NeedsPerson` for a folder in the workspace: what is put there would be sent."""
    if f"{os.path.realpath(destination)}/".startswith(f"{config.workspace.path}/"):
        raise NeedsPerson(
            f"'{shown_path(destination)}' is in the workspace, so what is put there would be sent",
            "name a folder outside of it",
        )


def option_for(path: str) -> str:
    """The option that commands need here for this configuration, with a space before it; empty if they find it."""
    with suppress(ConfigError):
        if _found_here().file == path:
            return ""
    return f" --config {shown_path(shlex.quote(path))}"


def keeper(option: str) -> str:
    """The command that keeps the workspace in sync from now on, on this machine; `option` as `option_for` has it."""
    return f"syncd service install{option}" if os.path.isdir(BOOTED_BY_SYSTEMD) else f"syncd run{option}"


def shipped(file: str) -> str:
    """The text of a file that comes with syncd, in the installation or in a checkout. Raises `NeedsPerson`."""
    package = os.path.dirname(os.path.abspath(syncd.__file__))
    checkout = os.path.dirname(package)
    for folder in (package, os.path.join(package, "units"), checkout, os.path.join(checkout, "systemd")):
        with suppress(FileNotFoundError), open(os.path.join(folder, file), encoding="utf-8") as found:
            return found.read()
    raise NeedsPerson(f"{file} is missing from this installation", "install syncd again")


def _found_here() -> FoundConfig:
    """The configuration without `--config`; it is looked for once a command."""
    memory = _memory()
    if _FOUND not in memory:
        try:
            directory = os.getcwd()
        except OSError:  # it was removed
            directory = "/"
        memory[_FOUND] = find_config(directory, os.environ)
    found: FoundConfig = memory[_FOUND]
    return found


def _memory() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return {} if context is None else context.meta


def _others(name: str) -> str:
    """The hint for a name that no configuration has."""
    if os.path.lexists(name):
        return f"for the file in this directory write ./{name}"
    names = [config_name(file) for file in config_files(os.environ)]
    hint = f"`syncd init --config {shown_path(shlex.quote(name))}` writes it"
    return f"the names are {', '.join(names)}; {hint}" if names else hint
