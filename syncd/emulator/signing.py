"""Makes and verifies V4 signed URLs, so that the emulator's URLs really expire and are really refused.

Their form is documented by Google Cloud Storage: the canonical request (method, path, query, signed headers) hashed
into a string to sign. Only the signature differs: a shared secret's HMAC, as long in hex as an RSA signature.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

from msgspec import Struct

ALGORITHM = "GOOG4-RSA-SHA256"
MAX_LIFETIME_S = 604_800
MAX_SKEW_S = 900
_ACCOUNT = "emulator@local-sandbox.iam.gserviceaccount.com"
_STAMP = "%Y%m%dT%H%M%SZ"
_REQUIRED = ("algorithm", "credential", "date", "expires", "signedheaders", "signature")


class Refusal(Struct, frozen=True):
    """A refusal of the bucket: the HTTP status and the XML's code, message and details."""

    status: int
    code: str
    message: str
    details: str = ""


class Signer(Struct, frozen=True):
    """Makes and verifies URLs for `host` (name:port); they are not valid for another host."""

    secret: bytes
    host: str

    def url(self, method: str, path: str, *, now_s: float, lifetime_s: int, content_type: str | None) -> str:
        """A URL for `method` on the percent-encoded `path`, valid until `now_s + lifetime_s`, in whole seconds."""
        moment = datetime.fromtimestamp(int(now_s), UTC)
        signed = {"host": self.host} | ({"content-type": content_type} if content_type is not None else {})
        query = [
            ("X-Goog-Algorithm", ALGORITHM),
            ("X-Goog-Credential", f"{_ACCOUNT}/{moment:%Y%m%d}/auto/storage/goog4_request"),
            ("X-Goog-Date", moment.strftime(_STAMP)),
            ("X-Goog-Expires", str(lifetime_s)),
            ("X-Goog-SignedHeaders", ";".join(sorted(signed))),
        ]
        canonical = _canonical_request(method, path, query, sorted(signed.items()))
        text = _string_to_sign(query[1][1], query[2][1], canonical)
        return f"http://{self.host}{path}?{_encoded(query)}&X-Goog-Signature={self._signature(text)}"

    def verify(
        self, method: str, path: str, query: Iterable[tuple[str, str]], headers: Iterable[tuple[str, str]], now_s: float
    ) -> Refusal | None:
        """None if the request is as signed and not expired. Header names may have any case, and be repeated."""
        pairs = [(name, value) for name, value in query if name.lower() != "x-goog-signature"]
        given = {name.lower().removeprefix("x-goog-"): value for name, value in query if name.lower()[:7] == "x-goog-"}
        sent: dict[str, str] = {}
        for name, value in headers:
            low = name.lower()
            sent[low] = f"{sent[low]},{value.strip()}" if low in sent else value.strip()
        if "signature" not in given:
            details = "Anonymous caller does not have access to the object."
            return Refusal(403, "AccessDenied", "Access denied.", details)
        if "authorization" in sent:
            details = "Only one authentication mechanism allowed: a signed query or the Authorization header."
            return Refusal(400, "InvalidArgument", "Invalid argument.", details)
        missing = [name for name in _REQUIRED if not given.get(name)]
        if missing or given["algorithm"] != ALGORITHM or not re.fullmatch(r"[0-9]{1,7}", given["expires"]):
            return Refusal(400, "InvalidArgument", "Invalid argument.", "The query's signing parameters are not valid.")
        try:
            signed_at_s = datetime.strptime(given["date"], _STAMP).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return Refusal(400, "InvalidArgument", "Invalid argument.", "X-Goog-Date is not valid.")
        lifetime_s = int(given["expires"])
        if not 1 <= lifetime_s <= MAX_LIFETIME_S:
            return Refusal(400, "InvalidArgument", "Invalid argument.", "X-Goog-Expires must be 1 to 604800.")
        if now_s >= signed_at_s + lifetime_s:
            details = (
                f"Request signature expired at: {datetime.fromtimestamp(signed_at_s + lifetime_s, UTC).isoformat()}"
            )
            return Refusal(400, "ExpiredToken", "The provided token has expired.", details)
        if signed_at_s > now_s + MAX_SKEW_S:
            return Refusal(403, "RequestTimeTooSkewed", "The request's time is too far in the future.")
        return self._verify_headers(method, path, pairs, given, sent)

    def _verify_headers(
        self, method: str, path: str, query: list[tuple[str, str]], given: dict[str, str], sent: dict[str, str]
    ) -> Refusal | None:
        names = given["signedheaders"].split(";")
        # Google signs "lower case, sorted"; a URL in another order does not match there either.
        if "host" not in names or names != sorted({name.lower() for name in names}):
            return Refusal(400, "InvalidArgument", "Invalid argument.", "X-Goog-SignedHeaders is not valid.")
        malformed = "Your request has a malformed header."
        for name in names:
            if name not in sent:
                details = f"{name}: header was included in signedheaders, but not in the request."
                return Refusal(400, "MalformedSecurityHeader", malformed, details)
        for name in sent:
            if name.startswith("x-goog-") and name not in names:
                details = f"{name}: header was included in the request, but not in signedheaders."
                return Refusal(400, "MalformedSecurityHeader", malformed, details)
        # A URL is valid for the bucket's own host only.
        values = [(name, self.host if name == "host" and sent[name] == self.host else sent[name]) for name in names]
        canonical = _canonical_request(method, path, query, values)
        text = _string_to_sign(given["credential"], given["date"], canonical)
        if not hmac.compare_digest(self._signature(text), given["signature"].lower()):
            message = "Access denied."
            return Refusal(403, "SignatureDoesNotMatch", message, "The signature is not that of this request.")
        return None

    def _signature(self, text: str) -> str:
        blocks = (hmac.digest(self.secret, bytes([number]) + text.encode(), "sha512") for number in range(4))
        return b"".join(blocks).hex()


def _encoded(query: Iterable[tuple[str, str]]) -> str:
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='', errors='surrogateescape')}" for name, value in query
    )


def _canonical_request(method: str, path: str, query: list[tuple[str, str]], headers: Iterable[tuple[str, str]]) -> str:
    names_and_values = list(headers)
    lines = [
        method,
        path,
        _encoded(sorted(query)),
        *(f"{name}:{' '.join(value.split())}" for name, value in names_and_values),
        "",
        ";".join(name for name, _ in names_and_values),
        "UNSIGNED-PAYLOAD",
    ]
    return "\n".join(lines)


def _string_to_sign(credential: str, stamp: str, canonical: str) -> str:
    scope = credential.partition("/")[2]
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"
