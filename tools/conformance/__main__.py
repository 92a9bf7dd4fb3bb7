"""`python -m tools.conformance --api-key-file F` tries each assumption about the service in a throw-away sandbox.

It acquires a sandbox and releases it, also when it is stopped, makes less than 300 requests, and prints what is assumed
and what was found. In what the service differs goes into a profile, which the convergence tests take. Neither has the
key, a URL or the sandbox's id.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import msgspec

from tools.conformance.profile import Profile
from tools.conformance.rows import RELEASED, ROWS, Trial, found, released
from tools.conformance.service import Service, Unexpected

_LIVES_S = 3600  # what is not released, as the machine dies, ends by itself


def main() -> int:
    """Try all rows, print the table, and write the profile; 1 if something is not as assumed."""
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=__doc__)
    parser.add_argument("--api-key-file", type=Path, required=True, metavar="F")
    parser.add_argument("--base-url", default="https://api.klavis.ai", metavar="U", help="default: %(default)s")
    parser.add_argument("--sandbox", metavar="ID", help="use this one; all that is in it is lost")
    parser.add_argument("--profile", type=Path, default=Path("profile.json"), metavar="F", help="default: %(default)s")
    parser.add_argument("--pause", type=float, default=3.0, metavar="S", help="how long programs run; %(default)s")
    parser.add_argument(
        "--long",
        type=float,
        default=30.0,
        metavar="S",
        help="and one that takes long, for which `--long 900` finds the service's own limit; %(default)s",
    )
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    service = Service(chosen.base_url, chosen.api_key_file.read_text("utf-8").strip())
    try:
        service.sandbox = chosen.sandbox or _acquire(service)
        it = Trial(service, chosen.pause, chosen.long)
        rows = [_shown(row.subject, row.assumed, found(row, it)) for row in ROWS]
        if not chosen.sandbox:
            rows.append(_shown("a release", RELEASED, released(service)))
    except (Unexpected, KeyboardInterrupt) as error:
        sys.exit(service.redacted(str(error) or "stopped"))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _leave(service, is_ours=not chosen.sandbox)
    chosen.profile.write_bytes(msgspec.json.encode(Profile(**it.profile)) + b"\n")
    print(f"\n{sum(rows)} as assumed, {len(rows) - sum(rows)} not; {service.requests} requests (less than 300)")
    print(f"Not tried, as it takes long: a URL after its end, a sandbox's own end. Profile: {chosen.profile}")
    return 0 if all(rows) else 1


def _shown(subject: str, assumed: str, what: str) -> bool:
    """Print a row; return True if it is as assumed."""
    agrees = what == assumed
    print(f"{'ok' if agrees else '!!'}  {subject}: {what}{'' if agrees else f' (assumed: {assumed})'}", flush=True)
    return agrees


def _acquire(service: Service) -> str:
    body = {"server_names": ["filesystem"], "ttl_seconds": _LIVES_S}
    return str(service.ask("POST", "", json=body).ok().body["local_sandbox_id"])


def _leave(service: Service, *, is_ours: bool) -> None:
    """Release what was acquired; empty another sandbox."""
    try:
        if service.sandbox:
            (service.own("DELETE") if is_ours else service.own("POST", "/reset")).ok()
    except Unexpected as error:
        print(f"the sandbox is not {'released' if is_ours else 'emptied'}: {error}", file=sys.stderr)
    service.close()


if __name__ == "__main__":
    sys.exit(main())
