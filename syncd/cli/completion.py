"""`syncd completion`: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and files at a TAB.

    \b
    bash, in ~/.bashrc:                   eval "$(syncd completion bash)"
    zsh, in ~/.zshrc after compinit:      eval "$(syncd completion zsh)"
    fish, in ~/.config/fish/config.fish:  syncd completion fish | source
    """  # noqa: D301 - "\b" makes click keep the lines as they are
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - only here

    engine = get_completion_class(shell)
    assert engine is not None  # noqa: S101 - click has had all three since 8.0
    script = engine(ctx.find_root().command, {}, "syncd", "_SYNCD_COMPLETE").source()
    # click's script for fish would cut a name or a help text at its first comma.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'), nl=False)
