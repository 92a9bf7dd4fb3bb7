"""The next steps of the set-up, as commands that can be typed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping

from syncd.core.api_key import KEY_VARIABLE
from syncd.core.settings import Config
from syncd.core.text import shown_path


def after_first_sync(option: str) -> str:
    """The next step after a first sync; `option` is the ` --config FILE` that commands need."""
    return f"next: `syncd service install{option}` keeps it in sync from now on"


def next_steps(config: Config, option: str, environ: Mapping[str, str]) -> Iterator[str]:
    """The steps after the configuration is written, the missing ones first; `option` as above."""
    key_file = config.sandbox.api_key_file
    if not os.path.lexists(key_file):
        yield ""
        if environ.get(KEY_VARIABLE):
            yield f"The API key comes from ${KEY_VARIABLE}. A service does not see that; for one,"
            yield f"put it into {shown_path(key_file)}, mode 0600."
        else:
            yield "The API key is still missing. Make its file, and paste the key into it:"
            yield f"  install -m 600 /dev/null {shown_path(shlex.quote(key_file))}"
    if not os.path.isdir(config.workspace.path):
        yield ""
        yield f"The directory {shown_path(config.workspace.path)} does not exist yet."
    yield ""
    yield "Next:"
    yield f"  syncd check{option}            tries all that a sync needs"
    yield f"  syncd ls{option}               shows what would be sent"
    yield f"  syncd push{option}             sends it once"
    yield f"  syncd service install{option}  keeps it in sync from now on"
