"""The commands by name, and what becomes of their failures.

A command is loaded when it is called, since `--version` and `status` must be instant. Its entry is `command` in the
module or the package of its name; a few are beside another one.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from syncd import __version__
from syncd.cli import end_now, interrupt_at_signals
from syncd.cli.output import (
    CommandGroup,
    home_relative,
    may_colour,
    open_standard_streams,
    print_error,
    print_internal_error,
    stdout_failure,
    verbosity_options,
)
from syncd.core.errors import ExitCode, NeedsPerson, Stop, SyncdError, TryLater
from syncd.core.process import disable_core_dumps, set_private_umask

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# As `syncd --help` lists them: no group has more than seven, as people take in no more at a glance.
GROUPS = {
    "Every day": {
        "status": "Show what the daemon is doing, and did last.",
        "push": "Sync once, now.",
        "flush": "Wait until the sandbox has all that is here.",
        "pause": "Pause syncing.",
        "resume": "Resume syncing, and catch up.",
    },
    "The agent's work": {
        "diff": "Show what the agent changed, as a patch.",
        "apply": "Bring the agent's work home.",
        "resolve": "List what waits for you, or decide it.",
        "saved": "List, restore and drop saved versions.",
    },
    "Set up": {
        "init": "Write a commented configuration file.",
        "service": "Run syncd at every login, by systemd.",
        "setup": "Run `sandbox.setup` in the sandbox now.",
        "run": "Run the daemon in the foreground.",
        "config": "Show and edit the configuration.",
        "reload": "Have the daemon read its configuration anew.",
        "sandbox": "List, add, acquire and release sandboxes.",
    },
    "Look closer": {
        "explain": "Say if a path is sent, and by which rule.",
        "ls": "List what is sent, or what is excluded.",
        "check": "Test all that a sync needs.",
        "verify": "Compare the sandbox with the workspace.",
        "history": "List past syncs.",
        "pull": "Download the sandbox to a new folder.",
    },
    "Try it out": {
        "demo": "Show the whole job with no account.",
        "emulator": "Run a stand-in for Klavis on this machine.",
        "completion": "Print the script for completion at a TAB.",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}

# What people type who know other programs, and what they mean.
_MEANT = {
    "conflicts": "resolve",
    "download": "pull",
    "edit": "config edit",
    "install": "service install",
    "logs": "service logs",
    "restart": "service restart",
    "restore": "saved restore",
    "start": "service start",
    "stop": "service stop",
    "sync": "push",
    "undo": "apply --undo",
    "uninstall": "service uninstall",
    "upload": "push",
    "version": "--version",
    "watch": "status --watch",
}

# The module of a command that has none of its own.
_BESIDE = {
    "completion": "commands",
    "explain": "ls",
    "flush": "push",
    "reload": "config",
    "resume": "pause",
    "setup": "push",
}


class _Commands(CommandGroup):
    """Lists the commands by name, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        beside = _BESIDE.get(cmd_name)
        module = importlib.import_module(f"syncd.cli.{beside or cmd_name}")
        command = getattr(module, cmd_name if beside else "command")
        assert isinstance(command, click.Command)  # noqa: S101 - each of these modules has one
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called, loaded: from now on a signal interrupts it. `run` handles signals itself."""
        word = args[0] if args else ""
        if word == "help" and not ctx.resilient_parsing:  # `syncd help push` is `syncd push --help`
            args = [*args[1:], "--help"]
            word = args[0]
            if word == "--help":
                click.echo(ctx.get_help())
                ctx.exit()
        if word and word not in COMMANDS and not word.startswith("-") and not ctx.resilient_parsing:
            from syncd.core.settings import similar  # noqa: PLC0415 - only when something was mistyped

            meant = _MEANT.get(word) or similar(word, COMMANDS) or "--help"
            ctx.fail(f"There is no command {word!r}: try `syncd {meant}`.")
        resolved = super().resolve_command(ctx, args)
        if sys.platform != "linux" and "--help" not in args:
            raise NeedsPerson(
                "syncd needs Linux", "run it in a Linux virtual machine, with the workspace on its own disk"
            )
        if resolved[0] != "run":
            interrupt_at_signals()
        return resolved

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands by their names alone: click would import their modules, and a TAB would take twice as long."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only at a TAB

        commands = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in group.items()])


# What a report of a defect needs to tell of this program.
_SYSTEM, _PLACE = os.uname(), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PYTHON = f"Python {sys.version.split()[0]}, {_SYSTEM.sysname} {_SYSTEM.release} {_SYSTEM.machine}"
_ABOUT = f"syncd, version {__version__}\n{_PYTHON}, {home_relative(_PLACE)}".replace("%", "%%")


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `syncd init`, or with `syncd demo`, which needs no account. `syncd help COMMAND` shows examples."
    " Exit codes: 0 done or nothing to do; 1 something differs;"
    " 2 wrong usage; 75 may work later; 78 a person must change something.",
)
@click.version_option(__version__, message=_ABOUT, help="Show versions, platform and place, and exit.")
@verbosity_options
def cli() -> None:
    """Keep a remote sandbox's workspace in sync with a directory on this machine."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and files at a TAB.

    \b
    eval "$(syncd completion bash)"    in ~/.bashrc
    eval "$(syncd completion zsh)"     in ~/.zshrc, last
    syncd completion fish | source     in config.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - only here

    engine = get_completion_class(shell)
    assert engine is not None  # noqa: S101 - click has had all three since 8.0
    script = engine(ctx.find_root().command, {}, "syncd", "_SYNCD_COMPLETE").source()
    # click's script for fish would cut a name or a help text at its first comma.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'), nl=False)


def run_command() -> int:
    """Run the command that the arguments name, and return its exit code."""
    open_standard_streams()
    _harden()
    try:
        # On what is no terminal click writes no colours by itself.
        colour = None if may_colour() else False
        result: Any = cli.main(prog_name="syncd", standalone_mode=False, color=colour)
        _check_output()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as failure:
        what, context = failure.format_message(), getattr(failure, "ctx", None)
        what = f"{what[:1].lower()}{what[1:]}".removesuffix(".")
        print_error(what if context is None or "`" in what else f"{what} (see `{context.command_path} --help`)")
        return ExitCode.WRONG_USAGE
    except SyncdError as failure:
        print_error(str(failure))
        return failure.exit_code
    except (Stop, click.Abort):
        raise KeyboardInterrupt from None
    except OSError as failure:
        if isinstance(failure, FileNotFoundError) and failure.filename is None:  # as of getcwd(2) alone
            print_error("the current directory was removed: change to one that is there")
            return ExitCode.NEEDS_PERSON
        what = f"{failure.strerror or failure}, {failure.filename or 'no file'}"
        print_error(f"this machine refused something ({what}): see `syncd check`")
        needs_person = isinstance(failure, PermissionError | NotADirectoryError)
        return ExitCode.NEEDS_PERSON if needs_person else ExitCode.TRY_LATER
    except Exception as failure:  # noqa: BLE001 - the last resort: a traceback does not help a person
        print_internal_error(failure)
        return ExitCode.TRY_LATER
    return result if isinstance(result, int) else ExitCode.DONE


def _check_output() -> None:
    """Raise `TryLater` if not all of stdout could be written. A closed pipe is no failure: `syncd ls | head`."""
    failure = stdout_failure()
    if failure is not None and not isinstance(failure, BrokenPipeError):
        raise TryLater(
            f"the output cannot be written ({failure.strerror})", "write it elsewhere; what was asked is done"
        )


def _harden() -> None:
    """Make new files private, keep the key out of core dumps, and allow enough open files for deep trees."""
    set_private_umask()
    disable_core_dumps()
    sys.excepthook = lambda _kind, failure, _trace: print_internal_error(failure)
    sys.unraisablehook = lambda failed: _lost(failed.exc_value)
    threading.excepthook = lambda failed: print_internal_error(failed.exc_value)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _lost(failure: BaseException | None) -> None:
    """Handle what was raised where the interpreter can raise nothing: a Ctrl-C counts all the same."""
    if isinstance(failure, KeyboardInterrupt):
        end_now()
    print_internal_error(failure)
