"""The emulator's bucket accepts, refuses and answers as Google's does."""

from __future__ import annotations

import http.client
import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, files


def code(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the XML's code."""
    found = re.fullmatch(r"<\?xml [^>]*\?><Error><Code>(\w+)</Code><Message>[^<]+</Message></Error>", answer.text)
    assert found, answer.text
    return answer.status_code, found[1]


def test_the_url_has_googles_form(rig: EmulatorRig) -> None:
    """It has algorithm, credential, date, expiry, signed headers and an RSA signature, at another origin."""
    url = urlsplit(rig.upload_url("asia"))
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert url.netloc != urlsplit(rig.emulator.base_url).netloc
    assert re.fullmatch(r"/[a-z-]+-asia/local-sandbox/box/workspace\.tar\.gz", url.path)
    assert query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
    assert re.fullmatch(r".+@.+/\d{8}/auto/storage/goog4_request", query["X-Goog-Credential"])
    assert re.fullmatch(r"\d{8}T\d{6}Z", query["X-Goog-Date"])
    assert query["X-Goog-Expires"] == "1800"
    assert query["X-Goog-SignedHeaders"] == "content-type;host"
    assert re.fullmatch(r"[0-9a-f]{512}", query["X-Goog-Signature"])


def _swapped(url: str, old: str, new: str) -> str:
    assert old in url
    return url.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        ("workspace.tar.gz", "other.tar.gz", (403, "SignatureDoesNotMatch")),
        ("-us/", "-asia/", (403, "SignatureDoesNotMatch")),
        ("X-Goog-Expires=1800", "X-Goog-Expires=1801", (403, "SignatureDoesNotMatch")),
        ("X-Goog-Expires=1800", "X-Goog-Expires=604801", (400, "InvalidArgument")),
        ("X-Goog-Expires=1800", "X-Goog-Expires=soon", (400, "InvalidArgument")),
        ("GOOG4-RSA-SHA256", "NONE", (400, "InvalidArgument")),
        ("content-type%3Bhost", "host", (403, "SignatureDoesNotMatch")),
        ("content-type%3Bhost", "content-type", (400, "InvalidArgument")),
        ("&X-Goog-Signature=", "&x-goog-signature=0", (403, "SignatureDoesNotMatch")),
        ("&X-Goog-Signature=", "&nothing=", (403, "AccessDenied")),
        ("X-Goog-Date=2", "X-Goog-Date=x", (400, "InvalidArgument")),
        ("X-Goog-Algorithm=", "userProject=x&X-Goog-Algorithm=", (403, "SignatureDoesNotMatch")),
    ],
)
def test_a_changed_url_is_refused(rig: EmulatorRig, old: str, new: str, refusal: tuple[int, str]) -> None:
    """Every part of a signed URL is signed."""
    assert code(rig.bucket.put(_swapped(rig.upload_url(), old, new), content=b"x", headers=GZIP)) == refusal


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({"Content-Type": "application/x-gzip"}, (403, "SignatureDoesNotMatch")),
        ({}, (400, "MalformedSecurityHeader")),
        (GZIP | {"x-goog-meta-a": "1"}, (400, "MalformedSecurityHeader")),
        (GZIP | {"Authorization": "Bearer key-of-the-test"}, (400, "InvalidArgument")),
    ],
)
def test_other_headers_are_refused(rig: EmulatorRig, headers: dict[str, str], refusal: tuple[int, str]) -> None:
    """The content type is signed; no `x-goog-` header may be added, and no key sent."""
    assert code(rig.bucket.put(rig.upload_url(), content=b"x", headers=headers)) == refusal
    assert code(rig.bucket.get(rig.upload_url(), headers=GZIP))[0] == 403


def test_another_name_for_the_host_is_refused(rig: EmulatorRig) -> None:
    """A URL is valid only for the host that it was signed for, even if another name leads to the same server."""
    url = rig.upload_url().replace("127.0.0.1", "localhost")
    assert code(rig.bucket.put(url, content=b"x", headers=GZIP)) == (403, "SignatureDoesNotMatch")


def test_parameter_names_come_in_any_case(rig: EmulatorRig) -> None:
    """Parameter names have any case, so that an expired URL is refused as expired, not for its signature."""
    url = rig.upload_url()
    rig.clock.ahead_s = 1801
    lower = re.sub(r"X-Goog-\w+", lambda found: found[0].lower(), url)
    assert code(rig.bucket.put(lower, content=b"x", headers=GZIP)) == (400, "ExpiredToken")


def test_a_url_expires_in_time(rig: EmulatorRig) -> None:
    """A URL can be used many times until its lifetime has passed, and not after that."""
    url = rig.upload_url()
    rig.clock.ahead_s = 1795
    for _ in range(2):
        assert rig.bucket.put(url, content=files(a=b"1"), headers=GZIP).status_code == 200
    rig.clock.ahead_s = 1801
    assert code(rig.bucket.put(url, content=b"x", headers=GZIP)) == (400, "ExpiredToken")
    rig.clock.ahead_s = -3600
    assert code(rig.bucket.put(url, content=b"x", headers=GZIP)) == (403, "RequestTimeTooSkewed")


def test_a_length_is_required(rig: EmulatorRig) -> None:
    """A chunked body is refused with V4 URLs."""
    answer = rig.bucket.put(rig.upload_url(), content=iter([b"x"]), headers=GZIP)
    assert code(answer) == (411, "MissingContentLength")


def test_an_incomplete_upload_stores_nothing(rig: EmulatorRig) -> None:
    """The object stays unchanged if the client closes the connection in the middle."""
    rig.upload(files(a=b"old"))
    url = urlsplit(rig.upload_url())
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    for name, value in {**GZIP, "Content-Length": "1000000"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"x" * 500_000)
    connection.close()
    assert rig.emulator.request_log.wait("upload", 2)
    assert rig.emulator.request_log[-1].status is None
    assert rig.api.post(f"{PATH}/initialize").status_code == 200
    assert rig.tree() == {"a": b"old"}
    assert not list(rig.emulator.data_dir.rglob("*.part"))


def test_a_missing_object(rig: EmulatorRig) -> None:
    """A valid URL for an object that was never stored is 404."""
    url = rig.api.get(f"{PATH}/dump").json()["download_url"]
    for version in (rig.emulator.data_dir / "bucket").rglob("dump.tar.gz"):
        version.unlink()
    assert code(rig.bucket.get(url)) == (404, "NoSuchKey")
