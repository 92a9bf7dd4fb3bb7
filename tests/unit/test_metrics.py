"""The metrics text reads alike with parsers of OpenMetrics and of Prometheus' older format."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as older_format

from syncd.report.metrics import exposition
from syncd.sync.status_document import AgentStatus, LastError, LastSync, SandboxName, SandboxStatus, State, Status
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
    sandboxes=(
        SandboxStatus(
            "main",
            "box",
            "https://api.klavis.ai",
            State.RETRYING,
            LastSync("2026-11-24T13:20:01Z", 812, 5_123_456, "ab", 0.84),
            agent=AgentStatus(saved=2, held_count=77, changed=5, follow_requests=31),
        ),
        SandboxStatus("blue", "box-2", "https://api.klavis.ai", State.WATCHING, agent=AgentStatus(saved=3, changed=6)),
    ),
)


def test_a_running_daemon() -> None:
    """Every metric is there: gauges and counters only, which both formats have. Both parsers read the same."""
    text = exposition(FULL, NOON_S, "0.2.0")
    assert text == Path(__file__).with_name("metrics.txt").read_text("utf-8")
    read = [
        [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]
        for families in (open_metrics(text), older_format(text))
    ]
    assert read[0] == read[1]


def test_what_is_unknown_has_no_sample() -> None:
    """Of a workspace that was never synced, and that no daemon watches."""
    lines = exposition(NOTHING, NOON_S, "0.2.0").splitlines()
    names = {line.partition("{")[0] for line in lines if not line.startswith("#")}
    assert names == {
        *("syncd_up", "syncd_info", "syncd_state", "syncd_pending", "syncd_syncs_total", "syncd_failures_total"),
        *("syncd_uploaded_bytes_total", "syncd_warnings", "syncd_saved_versions", "syncd_held_paths"),
        "syncd_status_timestamp_seconds",
    }
    assert 'syncd_up{workspace="/home/dev/code"} 0' in lines
    assert 'syncd_info{workspace="/home/dev/code",version="0.2.0",sandbox="box"' in "\n".join(lines)
    hung = exposition(replace(FULL, responding=False), NOON_S, "0.2.0")
    assert 'syncd_up{workspace="/home/dev/code"} 0' in hung.splitlines()


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
