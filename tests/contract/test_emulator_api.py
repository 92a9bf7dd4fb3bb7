"""The emulator's API answers as the service's description says, and with FastAPI's errors."""

from __future__ import annotations

import io
import socket
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.contract.emulator_rig import GZIP, KEY, PATH, SANDBOX, EmulatorRig, files, started_rig
from tests.emulator import Emulator, RequestRecord


def test_upload_initialize_dump(rig: EmulatorRig) -> None:
    """A dump holds the uploaded files, with `./` names and a `.` entry."""
    answer = rig.initialize(files(a__b_txt=b"hello", c_txt=b"there"))
    assert answer.json() == {
        "sandbox_id": SANDBOX,
        "status": "occupied",
        "message": "Extracted archive from GCS to workspace",
    }
    assert rig.tree() == {"a": None, "a/b.txt": b"hello", "c.txt": b"there"}
    dumped = rig.bucket.get(rig.api.get(f"{PATH}/dump").json()["download_url"])
    with tarfile.open(fileobj=io.BytesIO(dumped.content)) as tar:
        assert sorted(tar.getnames()) == [".", "./a", "./a/b.txt", "./c.txt"]


@pytest.mark.parametrize(
    ("authorization", "status", "detail"),
    [
        (None, 403, "Not authenticated"),
        ("Basic abc", 403, "Not authenticated"),
        ("Bearer", 403, "Not authenticated"),
        ("Bearer wrong", 401, "Invalid API key"),
    ],
)
def test_the_key_is_required(rig: EmulatorRig, authorization: str | None, status: int, detail: str) -> None:
    """Without a key the answer is 403, with a wrong one 401, whether the sandbox exists or not."""
    headers = {"Authorization": authorization} if authorization else {}
    answer = httpx.get(f"{rig.emulator.base_url}/local-sandbox/nowhere", headers=headers, timeout=60)
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/local-sandbox/nowhere", 404),
        ("POST", "/local-sandbox/nowhere/upload-url", 404),
        ("POST", "/local-sandbox/..%2f..%2fetc/initialize", 404),
        ("PUT", "/local-sandbox", 405),
        ("POST", f"{PATH}/dump", 405),
        ("GET", "/elsewhere", 404),
        ("GET", f"{PATH}/dump/", 404),
    ],
)
def test_unknown_paths(rig: EmulatorRig, method: str, path: str, status: int) -> None:
    """Unknown sandboxes and paths are 404, unknown methods 405, each with a `detail`."""
    answer = rig.api.request(method, path)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("method", "path", "body", "places"),
    [
        ("POST", f"{PATH}/upload-url?region=eu", None, [["query", "region"]]),
        ("POST", f"{PATH}/initialize?region=", None, [["query", "region"]]),
        ("GET", f"{PATH}/execution-logs", None, [["query", "execution_name"]]),
        ("GET", f"{PATH}/execution-logs?execution_name=a&cursor=x", None, [["query", "cursor"]]),
        ("POST", f"{PATH}/execute", b"{}", [["body", "execution_name"]]),
        ("POST", f"{PATH}/execute", b'{"execution_name": "../x"}', [["body", "execution_name"]]),
        ("POST", f"{PATH}/execute", b"", [["body"]]),
        ("POST", "/local-sandbox", b"{", [["body"]]),
        ("POST", "/local-sandbox", b'{"server_names": ["git", "x"]}', [["body", "server_names", 1]]),
        ("POST", "/local-sandbox", b'{"server_names": "ALL", "ttl_seconds": 59}', [["body", "ttl_seconds"]]),
        ("POST", "/local-sandbox", b'{"server_names": "ALL", "ttl_seconds": 86401}', [["body", "ttl_seconds"]]),
        ("POST", "/local-sandbox", b'{"server_names": "ALL", "benchmark": "x"}', [["body", "benchmark"]]),
        ("DELETE", f"{PATH}?is_ttl=perhaps", None, [["query", "is_ttl"]]),
    ],
)
def test_bad_parameters(
    rig: EmulatorRig, method: str, path: str, body: bytes | None, places: list[list[object]]
) -> None:
    """A bad region, body or parameter is 422, and `detail` names its place."""
    answer = rig.api.request(method, path, content=body)
    assert answer.status_code == 422
    assert [warning["loc"] for warning in answer.json()["detail"]] == places


def test_a_sandbox_from_acquire_to_release(rig: EmulatorRig) -> None:
    """A sandbox is acquired, listed, read and released; its uploads are deleted with it."""
    acquired = rig.api.post("/local-sandbox", json={"server_names": ["git", "terminal"], "ttl_seconds": None})
    assert acquired.status_code == 201
    name = acquired.json()["local_sandbox_id"]
    assert [server["server_name"] for server in acquired.json()["servers"]] == ["git", "terminal"]
    assert all(server["mcp_server_url"].startswith(rig.emulator.base_url) for server in acquired.json()["servers"])
    listed = rig.api.get("/local-sandbox").json()
    assert listed["total_count"] == 2
    assert {box["local_sandbox_id"] for box in listed["local_sandboxes"]} == {SANDBOX, name}
    url = rig.api.post(f"/local-sandbox/{name}/upload-url").json()["upload_url"]
    assert rig.bucket.put(url, content=b"1", headers=GZIP).status_code == 200
    assert rig.api.delete(f"/local-sandbox/{name}").status_code == 200
    assert rig.api.get(f"/local-sandbox/{name}").status_code == 404
    assert rig.api.delete(f"/local-sandbox/{name}").status_code == 404
    assert rig.api.get("/local-sandbox").json()["total_count"] == 1
    assert not [path for path in rig.emulator.data_dir.rglob("*") if name in str(path)]


def test_a_sandbox_expires(rig: EmulatorRig) -> None:
    """An expired sandbox is 404; one without an expiry stays."""
    name = rig.api.post("/local-sandbox", json={"server_names": "ALL"}).json()["local_sandbox_id"]
    rig.clock.ahead_s = 7199
    assert rig.api.get(f"/local-sandbox/{name}").status_code == 200
    rig.clock.ahead_s = 7201
    assert rig.api.post(f"/local-sandbox/{name}/upload-url").status_code == 404
    assert rig.api.get(PATH).status_code == 200


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    """Sandboxes, workspaces, objects, key and earlier URLs are valid in the next run on the same folder."""
    with started_rig(tmp_path) as rig:
        rig.initialize(files(a=b"1"))
        assert rig.initialize(b"none").status_code == 500
        url = rig.upload_url()
        killed = next((tmp_path / "bucket").rglob("workspace.tar.gz")).with_name("tmp1.part")
        killed.touch()
        assert (tmp_path / "api-key").stat().st_mode & 0o777 == 0o600
        assert tmp_path.stat().st_mode & 0o777 == 0o700
    with Emulator(tmp_path) as emulator:
        assert emulator.api_key == KEY
        assert not killed.exists()
        assert emulator.create_sandbox(SANDBOX).record.status == "error"
        assert [sandbox.id for sandbox in emulator.sandboxes()] == [SANDBOX]
        assert httpx.put(url, content=files(b=b"2"), headers=GZIP, timeout=60).status_code == 200
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{emulator.base_url}{PATH}/initialize", headers=headers, timeout=60).status_code == 200
        assert {path.name for path in emulator.create_sandbox(SANDBOX).workspace.iterdir()} == {"a", "b"}


# -- as tests use it


def test_a_failing_hook_is_not_lost(tmp_path: Path) -> None:
    """An error of a hook in a server thread is raised again when the emulator is closed."""

    def fail(_: RequestRecord) -> None:
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"), started_rig(tmp_path) as rig:  # noqa: PT012 - raised at its end
        rig.emulator.faults.on("list", "before", fail)
        assert rig.api.get("/local-sandbox").status_code == 500


def test_nothing_secret_is_kept(rig: EmulatorRig) -> None:
    """Neither the request log nor its lines hold a key or a signature."""
    rig.upload(files(a=b"1"))
    rig.api.get(f"{PATH}?api_key=key-of-the-test")
    shown = repr(rig.emulator.request_log.entries()) + "".join(map(str, rig.emulator.request_log))
    assert "key-of-the-test" not in shown
    assert "Goog" not in shown
    assert "workspace.tar.gz?…" in shown
    assert rig.emulator.request_log.ops() == ["upload-url", "upload", "get"]
    assert rig.emulator.request_log.count("upload", 200) == 1


# -- this machine alone


def answer(port: int, request: bytes) -> bytes:
    """Return the status line."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as lines:
            return lines.readline().rstrip()


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        [],
        ["HERE", "evil.example"],
        ["evil.example", "HERE"],
        ["HERE."],
        ["HERE, evil.example"],
        ["localhost"],
        ["127.0.0.1:1"],
        ["0.0.0.0:PORT"],
    ],
)
def test_a_page_of_another_name_is_refused(rig: EmulatorRig, hosts: list[str]) -> None:
    """A browser that resolves `evil.example` to 127.0.0.1 gets nothing."""
    for port in rig.emulator.ports():
        named = [host.replace("HERE", f"127.0.0.1:{port}").replace("PORT", str(port)) for host in hosts]
        for method in ("GET", "PUT", "OPTIONS"):
            lines = [f"{method} /local-sandbox HTTP/1.1", *(f"Host: {host}" for host in named), "Content-Length: 0"]
            said = answer(port, "\r\n".join([*lines, "", ""]).encode())
            assert said.split(b" ")[1] in (b"400", b"403"), said


def test_its_own_name_is_answered(rig: EmulatorRig) -> None:
    """Its own names are served, so the refusals are not of everything."""
    for host in ("127.0.0.1", "localhost"):
        assert rig.api.get(f"http://{host}:{rig.emulator.port}/local-sandbox/none").status_code == 404


def test_no_other_address_listens(rig: EmulatorRig) -> None:
    """Both ports are bound to 127.0.0.1 alone."""
    for port in rig.emulator.ports():
        for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as connection:
                connection.settimeout(5)
                with pytest.raises(OSError):
                    connection.connect((address, port))
