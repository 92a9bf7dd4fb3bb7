"""The status document as text for monitoring, valid both in OpenMetrics 1.0 and in Prometheus' older text format.

Node exporter's textfile collector reads the older one. So there are gauges and counters only, and a counter's TYPE line
has its name without `_total`, as OpenMetrics requires; the older format then treats the samples as untyped, and its
readers drop the empty family. Every sample has the workspace as a label: a folder may hold the files of several
workspaces, and two samples of one name with the same labels would make the collector refuse them all.

Sources: OpenMetrics 1.0 (RFC draft richih-opsawg-openmetrics); Prometheus, "Exposition formats".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from syncd.core.clock import seconds_of
from syncd.sync.status_document import State, Status

_Sample = tuple[Mapping[str, str], float]


def exposition(status: Status, now_s: float, version: str) -> str:
    """The text, with its end mark. An unknown value has no sample. `now_s` is in seconds since 1970."""
    lines: list[str] = []
    for name, meaning, value in _families(status, now_s, version):
        samples = value if isinstance(value, Sequence) else [] if value is None else [({}, value)]
        if not samples:
            continue
        family = name.removesuffix("_total")
        unit = family.rpartition("_")[2]
        lines.append(f"# HELP {family} {meaning}")
        lines.append(f"# TYPE {family} {'gauge' if family == name else 'counter'}")
        if unit in ("seconds", "bytes"):
            lines.append(f"# UNIT {family} {unit}")
        for labels, number in samples:
            pairs = ",".join(
                f'{key}="{_quoted(text)}"' for key, text in {"workspace": status.workspace, **labels}.items()
            )
            lines.append(f"{name}{{{pairs}}} {int(number) if number == int(number) else f'{number:.3f}'}")
    return "\n".join([*lines, "# EOF", ""])


def _families(
    status: Status, now_s: float, version: str
) -> Iterator[tuple[str, str, float | Sequence[_Sample] | None]]:
    """Yield each metric's name, whose end is its unit, its meaning, and its value or labelled values."""
    sandbox, last, error = status.sandbox, status.last_sync, status.last_error
    about = {"version": status.daemon_version or version, "sandbox": sandbox.id}
    about |= {"base_url": sandbox.base_url, "region": sandbox.region}
    left_out = [({"by": source}, count) for source, count in sorted(status.left_out.items())]
    states = [({"state": state.value}, state is status.state) for state in State]
    yield "syncd_up", "1 while the daemon runs and does not hang.", status.running and status.responding is not False
    yield "syncd_info", "1, with what is synced and to where; without a daemon the program's version.", [(about, 1)]
    yield "syncd_state", "1 for the state that the daemon is in, else 0.", states
    sandboxes = status.sandboxes
    of_each = [
        ({"name": each.name, "state": state.value}, state is each.state) for each in sandboxes for state in State
    ]
    held = [({"name": each.name}, each.agent.held_count) for each in sandboxes]
    arrived = [
        ({"name": each.name}, at_s)
        for each in sandboxes
        if each.last_sync and (at_s := seconds_of(each.last_sync.finished_at)) is not None
    ]
    yield "syncd_sandbox_state", "1 for the state that the daemon is in for a sandbox, else 0.", of_each
    looked = [({"name": each.name}, each.agent.follow_requests) for each in sandboxes]
    changed = [({"name": each.name}, each.agent.changed) for each in sandboxes]
    yield "syncd_sandbox_changed_paths", "Paths that the agent changed, as of the last look.", changed
    yield "syncd_sandbox_follow_requests_total", "Requests of this run that followed the agent.", looked
    yield "syncd_sandbox_held_paths", "Paths held now in a sandbox.", held
    yield "syncd_sandbox_last_sync_timestamp_seconds", "When the last sync to a sandbox ended.", arrived
    yield "syncd_pending", "1 while not all changes are in each sandbox.", status.pending
    yield "syncd_syncs_total", "Syncs of this run that were initialized.", status.syncs
    yield "syncd_failures_total", "Attempts of this run that failed.", status.failures
    yield "syncd_uploaded_bytes_total", "Bytes uploaded by this run.", status.uploaded_bytes
    yield "syncd_warnings", "Warnings now.", len(status.warnings)
    yield "syncd_left_out_paths", "Paths that are excluded, by the source of the rule.", left_out
    yield (
        "syncd_saved_versions",
        "Versions of the agent that are saved.",
        sum(each.agent.saved for each in sandboxes or (status,)),
    )
    yield "syncd_held_paths", "Paths held now.", status.agent.held_count
    yield "syncd_last_sync_duration_seconds", "How long the last sync took.", last.seconds if last else None
    yield "syncd_last_sync_archive_bytes", "The last archive's size.", last.archive_bytes if last else None
    yield "syncd_last_sync_files", "Files in the last snapshot.", last.files if last else None
    yield "syncd_status_timestamp_seconds", "When this was written: an old file has an old time.", now_s
    for event, meaning, stamp in (
        ("start", "When this run started.", status.started_at),
        ("state_since", "Since when it is in its state.", status.state_since),
        ("last_sync", "When the last sync ended.", last.finished_at if last else None),
        ("last_error", "When it failed last, until a success.", error.at if error else None),
        ("retry", "When it tries again.", status.retry_at),
        ("sandbox_end", "When the sandbox ends.", status.sandbox_expires_at),
        ("upload_url_end", "When the upload URL ends.", status.upload_url_expires_at),
    ):
        yield f"syncd_{event}_timestamp_seconds", meaning, seconds_of(stamp)


def _quoted(text: str) -> str:
    """A label's value in UTF-8, which both formats are; other bytes of a path are escaped."""
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return valid.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
