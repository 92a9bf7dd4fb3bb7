"""The metrics text reads alike with parsers of OpenMetrics and of Prometheus' older format."""

from __future__ import annotations

from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as older_format

from syncd.report.metrics import exposition
from syncd.sync.status_document import AgentStatus, LastError, LastSync, SandboxName, State, Status
from tests.clock import NOON_S

NOTHING = Status(
    running=False,
    pid=None,
    state=State.STOPPED,
    workspace="/home/dev/code",
    sandbox=SandboxName("box", "https://api.klavis.ai", "us"),
)
FULL = replace(
    NOTHING,
    running=True,
    pid=4242,
    state=State.RETRYING,
    pending=True,
    syncs=12,
    failures=3,
    last_sync=LastSync("2026-11-24T13:20:01Z", 812, 5_123_456, "ab", 0.84),
    last_error=LastError("2026-11-24T13:20:09Z", "upload", "503"),
    retry_at="2026-11-24T13:20:21Z",
    upload_url_expires_at="2026-11-24T13:49:10Z",
    warnings=("one: mend it", "two"),
    state_since="2026-11-24T13:20:09Z",
    started_at="2026-11-24T12:00:00Z",
    daemon_version="0.1.0",
    responding=True,
    uploaded_bytes=61_000_000,
    left_out={"built-in": 1100, ".gitignore": 102},
    sandbox_expires_at="2026-11-24T15:20:11Z",
    agent=AgentStatus(saved=2, held=("a",), held_count=77),
)

Samples = dict[tuple[str, str], float]


def samples(status: Status) -> Samples:
    """Each sample by its name and labels other than the workspace's, as both parsers read it, which must agree."""
    text = exposition(status, NOON_S, "0.2.0")
    read = [
        {
            (sample.name, ",".join(v for k, v in sample.labels.items() if k != "workspace")): sample.value
            for family in families
            for sample in family.samples
        }
        for families in (open_metrics(text), older_format(text))
    ]
    assert read[0] == read[1]
    return read[0]


def test_a_running_daemon() -> None:
    """Every metric is there, with its unit in its name and times in seconds."""
    found = samples(FULL)
    assert {(name, label): value for (name, label), value in found.items() if not name.startswith("syncd_state")} == {
        ("syncd_up", ""): 1,
        ("syncd_info", "0.1.0,box,https://api.klavis.ai,us"): 1,
        ("syncd_pending", ""): 1,
        ("syncd_syncs_total", ""): 12,
        ("syncd_failures_total", ""): 3,
        ("syncd_uploaded_bytes_total", ""): 61_000_000,
        ("syncd_warnings", ""): 2,
        ("syncd_saved_versions", ""): 2,
        ("syncd_held_paths", ""): 77,
        ("syncd_left_out_paths", "built-in"): 1100,
        ("syncd_left_out_paths", ".gitignore"): 102,
        ("syncd_start_timestamp_seconds", ""): NOON_S - 4811,
        ("syncd_last_sync_timestamp_seconds", ""): NOON_S - 10,
        ("syncd_last_sync_duration_seconds", ""): 0.84,
        ("syncd_last_sync_archive_bytes", ""): 5_123_456,
        ("syncd_last_sync_files", ""): 812,
        ("syncd_last_error_timestamp_seconds", ""): NOON_S - 2,
        ("syncd_retry_timestamp_seconds", ""): NOON_S + 10,
        ("syncd_sandbox_end_timestamp_seconds", ""): NOON_S + 7200,
        ("syncd_upload_url_end_timestamp_seconds", ""): NOON_S + 1739,
        ("syncd_status_timestamp_seconds", ""): NOON_S,
    }
    assert found["syncd_state_since_timestamp_seconds", ""] == NOON_S - 2


def test_labels_are_escaped() -> None:
    """Quotes, backslashes, line ends and bytes that are not UTF-8 read back as they were."""
    odd = 'a "b"\\n\nc é'
    text = exposition(replace(NOTHING, workspace=odd, sandbox=SandboxName(odd, "u", "us")), NOON_S, "1")
    for families in (open_metrics(text), older_format(text)):
        info = next(family for family in families if family.name == "syncd_info").samples[0]
        assert (info.labels["workspace"], info.labels["sandbox"]) == (odd, odd)
    bytes_of_old = exposition(replace(NOTHING, workspace="/caf\udce9"), NOON_S, "1")
    assert bytes_of_old.encode()  # no surrogate is left
    assert next(iter(open_metrics(bytes_of_old))).samples[0].labels["workspace"] == "/caf\\xe9"


def test_only_types_that_both_formats_have() -> None:
    """Only gauges and counters are used, with units; the end is marked, and nothing follows it."""
    text = exposition(FULL, NOON_S, "1")
    kinds = {family.name: family.type for family in open_metrics(text)}
    assert set(kinds.values()) == {"gauge", "counter"}
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        "syncd_syncs",
        "syncd_failures",
        "syncd_uploaded_bytes",
    }
    assert {family.unit for family in open_metrics(text)} == {"", "bytes", "seconds"}
    assert text.endswith("\n# EOF\n")
    assert all(family.documentation for family in open_metrics(text))
