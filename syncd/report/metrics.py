"""The status document as text for monitoring, valid both in OpenMetrics 1.0 and in Prometheus' older text format.

Node exporter's textfile collector reads the older one. So there are gauges and counters only, and a counter's TYPE line
has its name without `_total`, as OpenMetrics requires; the older format then treats the samples as untyped, and its
readers drop the empty family. Every sample has the workspace as a label: a folder may hold the files of several
workspaces, and two samples of one name with the same labels would make the collector refuse them all.

Sources: OpenMetrics 1.0 (RFC draft richih-opsawg-openmetrics); Prometheus, "Exposition formats".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from syncd.core.formatting import seconds_of
from syncd.sync.status_document import State, Status

_Sample = tuple[Mapping[str, str], float | None]


class _Family(Struct, frozen=True):
    name: str
    meaning: str
    samples: list[_Sample]
    kind: str = "gauge"
    unit: str = ""


def exposition(status: Status, now_s: float, version: str) -> str:
    """The text, with its end mark. An unknown value has no sample. `now_s` is in seconds since 1970."""
    lines: list[str] = []
    for family in _families(status, now_s, version):
        samples = [(labels, value) for labels, value in family.samples if value is not None]
        if not samples:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.meaning)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}")
        suffix = "_total" if family.kind == "counter" else ""
        for labels, value in samples:
            pairs = _labels({"workspace": status.workspace, **labels})
            lines.append(f"{family.name}{suffix}{{{pairs}}} {_number(value)}")
    return "\n".join([*lines, "# EOF", ""])


def _families(status: Status, now_s: float, version: str) -> Iterator[_Family]:
    last, error = status.last_sync, status.last_error
    yield _Family("syncd_up", "1 while the daemon runs and does not hang.", _one(_up(status)))
    yield _Family(
        "syncd_info",
        "1, with what is synced and to where; the version is the daemon's, or this program's while none runs.",
        [({"version": status.daemon_version or version, "sandbox": status.sandbox.id, **_where(status)}, 1)],
    )
    yield _Family(
        "syncd_state",
        "1 for the state that the daemon is in, else 0.",
        [({"state": state.value}, float(state is status.state)) for state in State],
    )
    yield _Family("syncd_pending", "1 while not all changes are in the sandbox.", _one(float(status.pending)))
    yield _Family("syncd_syncs", "Syncs of this run that were initialized.", _one(status.syncs), "counter")
    yield _Family("syncd_failures", "Attempts of this run that failed.", _one(status.failures), "counter")
    yield _Family(
        "syncd_uploaded_bytes", "Bytes uploaded by this run.", _one(status.uploaded_bytes), "counter", "bytes"
    )
    yield _Family("syncd_warnings", "Warnings now.", _one(len(status.warnings)))
    yield _Family(
        "syncd_left_out_paths",
        "Paths that are left out, by the source of the rule.",
        [({"by": source}, count) for source, count in sorted(status.left_out.items())],
    )
    yield _Family("syncd_saved_versions", "Versions of the agent that are saved.", _one(status.agent.saved))
    yield _Family("syncd_held_paths", "Paths held now.", _one(status.agent.held_count))
    yield _timestamp("syncd_start_timestamp_seconds", "When this run started.", status.started_at)
    yield _timestamp("syncd_state_since_timestamp_seconds", "Since when it is in its state.", status.state_since)
    if last is not None:
        yield _timestamp("syncd_last_sync_timestamp_seconds", "When the last sync ended.", last.finished_at)
        yield _Family(
            "syncd_last_sync_duration_seconds", "How long the last sync took.", _one(last.seconds), unit="seconds"
        )
        yield _Family(
            "syncd_last_sync_archive_bytes", "The size of the last archive.", _one(last.archive_bytes), unit="bytes"
        )
        yield _Family("syncd_last_sync_files", "Files in the last snapshot.", _one(last.files))
    if error is not None:
        yield _timestamp("syncd_last_error_timestamp_seconds", "When it failed last, until a success.", error.at)
    yield _timestamp("syncd_retry_timestamp_seconds", "When it tries again.", status.retry_at)
    yield _timestamp("syncd_sandbox_end_timestamp_seconds", "When the sandbox ends.", status.sandbox_expires_at)
    yield _timestamp(
        "syncd_upload_url_end_timestamp_seconds", "When the upload URL ends.", status.upload_url_expires_at
    )
    yield _Family(
        "syncd_status_timestamp_seconds",
        "When this was written: an old file has an old time.",
        _one(now_s),
        unit="seconds",
    )


def _up(status: Status) -> float:
    return float(status.running and status.responding is not False)


def _where(status: Status) -> dict[str, str]:
    return {"base_url": status.sandbox.base_url, "region": status.sandbox.region}


def _one(value: float | None) -> list[_Sample]:
    return [({}, value)]


def _timestamp(name: str, meaning: str, stamp: str | None) -> _Family:
    return _Family(name, meaning, _one(seconds_of(stamp)), unit="seconds")


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items())


def _escaped(text: str) -> str:
    return _valid_utf8(text).replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _valid_utf8(text: str) -> str:
    """The text as UTF-8, which both formats are; other bytes of a path are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
