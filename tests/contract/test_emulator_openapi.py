"""The emulator's answers match the service's public description, as checked by openapi-core."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

from tests.archives import archive, member
from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, started_rig

HOST = "http://emulator.invalid"
NAMED = json.dumps({"execution_name": "work"})
ID = "/local-sandbox/{local_sandbox_id}"
MAIN = archive(member("main.py", b"print('hello')"))

# Every operation of the description, with its request and the statuses that it must be able to answer.
CALLS: list[tuple[str, str, str | None, int]] = [
    ("GET", "/local-sandbox", None, 200),
    ("POST", "/local-sandbox", '{"server_names": "ALL"}', 201),
    ("POST", "/local-sandbox", '{"server_names": ["git"], "benchmark": "MCP_Mark", "ttl_seconds": 60}', 201),
    ("POST", "/local-sandbox", '{"server_names": "SOME"}', 422),
    ("POST", "/local-sandbox", "{", 422),
    ("POST", "/local-sandbox", "", 422),
    ("GET", PATH, None, 200),
    ("POST", f"{PATH}/upload-url", None, 200),
    ("POST", f"{PATH}/upload-url?region=asia", None, 200),
    ("POST", f"{PATH}/upload-url?region=eu", None, 422),
    ("POST", f"{PATH}/initialize", None, 200),
    ("POST", f"{PATH}/initialize?region=eu", None, 422),
    ("GET", f"{PATH}/dump", None, 200),
    ("GET", f"{PATH}/dump?region=eu", None, 422),
    ("POST", f"{PATH}/execution-upload-url", NAMED, 200),
    ("POST", f"{PATH}/execution-upload-url", "{}", 422),
    ("POST", f"{PATH}/export-artifacts", NAMED, 200),  # before the next execution: 409 while one runs
    ("POST", f"{PATH}/execute", NAMED, 200),
    ("POST", f"{PATH}/execute", "{}", 422),
    ("GET", f"{PATH}/execution-status?execution_name=work", None, 200),
    ("GET", f"{PATH}/execution-status", None, 422),
    ("GET", f"{PATH}/execution-logs?execution_name=work&cursor=2", None, 200),
    ("GET", f"{PATH}/execution-logs?execution_name=work&cursor=-2", None, 422),
    ("POST", f"{PATH}/export-artifacts", '{"execution_name": 1}', 422),
    ("POST", f"{PATH}/reset", None, 200),
    ("DELETE", f"{PATH}?is_ttl=maybe", None, 422),
    ("DELETE", PATH, None, 200),
]


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    """The public OpenAPI file: $SYNCD_OPENAPI, or an `openapi-local-sandbox.json` beside the checkout."""
    checkout = Path(__file__).resolve().parents[2]
    named = os.environ.get("SYNCD_OPENAPI")
    candidates = [Path(named)] if named else sorted(checkout.parent.glob("*/*/openapi-local-sandbox.json"))
    if not candidates:
        pytest.skip("no openapi-local-sandbox.json beside the checkout, and SYNCD_OPENAPI names none")
    found: dict[str, Any] = json.loads(candidates[0].read_text("utf-8"))
    # The real servers have other addresses; only paths are compared.
    return found | {"servers": [{"url": HOST}]}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[EmulatorRig]:
    """An emulator with both archives uploaded and an execution started."""
    with started_rig(tmp_path / "data") as rig:
        assert rig.initialize(archive(member("a", b"1"))).status_code == 200
        url = rig.api.post(f"{PATH}/execution-upload-url", content=NAMED).json()["upload_url"]
        assert rig.bucket.put(url, content=MAIN, headers=GZIP).status_code == 200
        assert rig.api.post(f"{PATH}/execute", content=NAMED).status_code == 200
        while rig.api.get(f"{PATH}/execution-status?execution_name=work").json()["status"] in ("pending", "running"):
            pass
        yield rig


def test_every_answer_is_described(description: dict[str, Any], rig: EmulatorRig) -> None:
    """Each operation's responses, successful or not, have the described form for their status."""
    openapi = OpenAPI.from_dict(description)
    for method, path, body, status in CALLS:
        answer = rig.api.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
        sent, url = answer.request, answer.request.url
        request = MockRequest(
            HOST, method, url.path, args=dict(url.params), headers=dict(sent.headers), data=sent.content
        )
        response = MockResponse(answer.content, status, dict(answer.headers), answer.headers["content-type"])
        openapi.validate_response(request, response)
        if status < 400:
            openapi.validate_request(request)


def test_every_operation_is_called(description: dict[str, Any]) -> None:
    """Every operation of the description is called, and with a wrong request too if there can be one."""
    called = {(method, path.partition("?")[0].replace(PATH, ID), status) for method, path, _, status in CALLS}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            # If only the path can vary, only the sandbox's id can be wrong.
            variable = "requestBody" in operation or any(p["in"] == "query" for p in operation.get("parameters", ()))
            for status in (*(int(status) for status in operation["responses"] if status < "4"), *([422] * variable)):
                assert (method.upper(), path, status) in called
