"""Decisions about the content of a sandbox, and the paths of a partial archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf
from types import MappingProxyType

import pytest
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Difference, Manifest
from syncd.model.reconcile import Forced, Policy, Versions
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Obstacle
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.sandbox.saved_versions import Why
from syncd.sync.sync_plan import (
    Attempt,
    Verdict,
    actions_after,
    changed_since,
    is_filled,
    is_outdated,
    least_of,
    look_request,
    lost_all,
    obstacles_seen,
    partial_paths,
    plan_look,
    staying_paths,
    verdict_on,
    with_staying,
    without_held,
)


def _file(size_bytes: int = 8) -> Entry:
    return Entry(Kind.FILE, 0o644, 0, size_bytes)


DIRECTORY = Entry(Kind.DIRECTORY, 0o755, 0)


MANIFEST = Manifest({"d": DIRECTORY, "d/a": _file(3), "d/b": _file(5), "e": DIRECTORY, "e/c": _file(9), "f": _file(1)})


def _known(digest: bytes) -> Entry:
    return Entry(Kind.FILE, 0o644, 0, 8, digest=digest)


def attempt(
    content: SandboxContent,
    manifest: Manifest,
    written: Manifest,
    deleted: Versions | None = None,
    held: Mapping[str, Entry] = MappingProxyType({}),
    policy: Policy = AgentChanges.SAVE,
    *,
    is_whole: bool = False,
) -> Attempt:
    """An archive to a sandbox that keeps what an archive lacks."""
    return Attempt(content, manifest, written, deleted or {}, held, {}, is_whole, all_may_go=False, policy=policy)


@pytest.mark.parametrize(
    ("policy", "actions"),
    [
        # In the order of the paths: as sent, changed, new, another kind, held; deleted.
        (AgentChanges.SAVE, "compare fetch fetch fetch fetch remove"),
        (AgentChanges.HOLD, "compare compare compare compare compare remove"),
        (Forced.FORCE, "fetch fetch fetch fetch fetch fetch"),
    ],
)
def test_what_is_looked_at(policy: Policy, actions: str) -> None:
    """What may be saved is fetched; what is removed at once is as it was put there, or reported."""
    base = Manifest({path: _known(b"d") for path in ("as-sent", "changed", "kind", "held", "deleted")})
    manifest = Manifest({"as-sent": base["as-sent"], "changed": _known(b"e"), "new": _known(b"n"), "kind": DIRECTORY})
    held = {"held": _known(b"h")}
    content = SandboxContent(base, ({"changed": _known(b"u")},))
    deleted = {"deleted": [base["deleted"]], "kind": [base["kind"]]}
    items = look_request(attempt(content, manifest, manifest, deleted, held, policy), (), {}).items
    order = ("as-sent", "changed", "new", "kind", "held", "deleted")
    assert " ".join(items[path].action.name.lower() for path in order) == actions
    assert {path: item.versions for path, item in items.items()} == {
        # What is missing there may be written; what is to be removed there has an outcome.
        "as-sent": (ABSENT, _known(b"d")),
        "changed": (ABSENT, _known(b"d"), _known(b"u"), _known(b"e")),
        "new": (ABSENT, _known(b"n")),
        "kind": (_known(b"d"), DIRECTORY),
        "held": (_known(b"d"), _known(b"h")),
        "deleted": (_known(b"d"),),
    }


def test_a_look_at_little_counts_a_sample() -> None:
    """So an emptied sandbox is noticed at a bounded cost; of what is written, it is reported where it is missing."""
    base = Manifest({f"{number:05}": _known(b"d") for number in range(5_000)})
    content = SandboxContent(base)

    def look(written: Manifest, *, is_whole: bool = False) -> Counter[tuple[LookAction, bool]]:
        request = look_request(attempt(content, base, written, is_whole=is_whole), (), {})
        return Counter((item.action, ABSENT in item.versions) for _, item in request.each())

    compared, reported, counted = (LookAction.COMPARE, True), (LookAction.COMPARE, False), (LookAction.EXISTS, False)
    assert look(Manifest({"00007": base["00007"]})) == {counted: 199, compared: 1}
    assert look(base, is_whole=True) == {compared: 4_800, reported: 200}
    few = SandboxContent(Manifest({"a": _known(b"d"), "b": _known(b"d")}))
    new = {"c": _known(b"d"), "d": _known(b"d")}
    request = look_request(attempt(few, base | new, Manifest(new)), (), {})
    assert {path for path, item in request.items.items() if item.action is LookAction.EXISTS} == {"a", "b"}
    nothing = look_request(attempt(UNKNOWN, Manifest(), Manifest()), (), {})
    assert not nothing.items


def test_what_is_looked_at_beside_what_is_written() -> None:
    """The directories that are written to, places, what is held or kept, and all that an initialize may take away."""
    base = Manifest({"d": DIRECTORY, "d/a": _known(b"d"), "e": DIRECTORY, "e/c": _known(b"d"), "f": _known(b"d")})
    manifest = base | {"d/a": _known(b"n"), "e/x": _known(b"x"), "f": _known(b"n"), "k": _known(b"k")}
    written = Manifest({"d/a": manifest["d/a"], "e/x": manifest["e/x"]})
    place = LookItem((), LookAction.PLACE)
    private = Entry(Kind.FILE, 0o600, 0, 8, digest=b"d")
    held = {"e/c": _known(b"h"), "d/a": _known(b"h"), "gone": _known(b"h")}
    content, deleted = SandboxContent(base, ({"f": private},)), {"gone": [_known(b"d")]}
    asked = replace(attempt(content, manifest, written, deleted, held, AgentChanges.HOLD), all_may_go=True)
    request = look_request(asked, ("f", "gone", "d/a", "e/c", "e"), {"d/a": place, "p": place, "e": place})
    directory, found = LookItem((ABSENT, DIRECTORY), LookAction.FETCH), dict(request.each())
    assert (found.pop("d"), found.pop("e")) == (directory, directory)
    assert (found.pop("d/a"), found.pop("p")) == (place, place)
    assert found.pop("gone") == LookItem((_known(b"d"),), LookAction.FETCH)
    assert found.pop("e/c") == LookItem((_known(b"d"), _known(b"h")), LookAction.FETCH)
    assert found.pop("f") == LookItem((_known(b"d"), private, _known(b"n")), LookAction.FETCH)
    as_wanted = {path: LookItem((ABSENT, manifest[path]), LookAction.FETCH) for path in ("e/x", "k")}
    assert found == as_wanted
    known = replace(asked, all_may_go=False, content=replace(content, uncertain=True))
    found = dict(look_request(known, ("f", "gone", "e"), {}).each())
    actions = {path: found[path].action for path in ("gone", "e/c", "f")}
    # What was sent and not answered may be unpacked late, over what stays there.
    assert actions == {"gone": LookAction.REMOVE, "e/c": LookAction.COMPARE, "f": LookAction.FETCH}
    assert [path for path, _ in request.each()].index("e/x") < [path for path, _ in request.each()].index("p")


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (Difference(added=["d/a"], changed=["e/c"], to_read=["f"], removed=["x"]), {"d/a", "e/c", "f"}),
        (Difference(removed=["x"]), {"d"}),
        (Difference(changed=["d", "d/a", "d/b", "e/c", "f"]), None),  # nothing would be left out
        (Difference(changed=["d/b", "e/c", "f"]), {"d/b", "e/c", "f"}),
    ],
)
def test_the_paths_of_a_partial_archive(found: Difference, paths: set[str] | None) -> None:
    """Those that differ, and something small where only deletions are sent; none if it would be whole."""
    assert partial_paths(MANIFEST, found) == paths
    assert partial_paths({}, Difference()) is None


def test_what_changes_least() -> None:
    """A directory, else the smallest file; nothing that stays as it is there."""
    files = {"a": _file(3), "b": _file(1), "c": _file(1), "d/e": _file(0)}
    assert [least_of(files, stays) for stays in ((), {"d"}, {"d", "b"}, set(files))] == [{"d/e"}, {"b"}, {"c"}, set()]
    assert least_of({**files, "x": DIRECTORY, "y": DIRECTORY}) == {"x"}
    assert least_of({"x": DIRECTORY, "y": DIRECTORY}, {"x"}) == {"y"}
    assert partial_paths(MANIFEST, Difference(removed=["x"]), {"d", "e"}) == {"f"}


def test_a_manifest_without_what_is_held() -> None:
    """A held path is as the sandbox got it last, or left out if it never did."""
    base = {"f": _file(7), "gone": _file(1)}
    assert without_held(MANIFEST, ["gone", "f", "d/a"], base) == {
        path: entry for path, entry in {**MANIFEST, "f": _file(7)}.items() if path != "d/a"
    }
    assert without_held(MANIFEST, ["f"], {}) == {path: entry for path, entry in MANIFEST.items() if path != "f"}
    assert MANIFEST["f"] == _file(1)


AGENTS = SeenEntry(Kind.FILE, 0o644, 0, 8, digest=b"a", copy="c")
TWO = SandboxContent(Manifest({"kept": _known(b"d"), "f": _known(b"d"), "gone": _known(b"d")}))
NOW = Manifest({"kept": _known(b"d"), "f": _known(b"n"), "new": _known(b"n")})


@pytest.mark.parametrize(
    ("policy", "number", "unsaved", "outcomes"),
    [
        # In the order of the paths: changed on both sides, deleted here, changed there alone, new on both sides.
        (AgentChanges.SAVE, 0, (), "save keep keep save"),
        (AgentChanges.SAVE, 0, ("f",), "hold keep keep save"),
        (AgentChanges.HOLD, 0, (), "hold keep keep hold"),
        (Forced.FORCE, 0, (), "save save save save"),
        (Forced.FORCE, 0, ("kept", "gone"), "save keep hold save"),
        (AgentChanges.OVERWRITE, 0, (), "write write write write"),
        (AgentChanges.SAVE, 3, (), "save keep save save"),  # an archive that holds it was made again and again
    ],
)
def test_what_becomes_of_what_differs(policy: Policy, number: int, unsaved: tuple[str, ...], outcomes: str) -> None:
    """By the policy, what could not be saved, and how often the archive was made again."""
    found = LookResult(differing=dict.fromkeys(("f", "gone", "kept", "new"), AGENTS))
    asked = replace(attempt(TWO, NOW, NOW, {"gone": [_known(b"d")]}, policy=policy), number=number)
    plan = plan_look(asked, found, unsaved)
    assert {each.path: each.outcome.name.lower() for each in plan.paths} == dict(
        zip(("f", "gone", "kept", "new"), outcomes.split(), strict=True)
    )
    same = LookResult(differing={"f": SeenEntry(Kind.FILE, 0o644, 9, 8, digest=b"n")})
    assert not plan_look(asked, same).paths


def test_what_follows_from_a_look() -> None:
    """What goes is saved by its reason, and what the look did not remove is removed; what stays may go, too."""
    asked = attempt(TWO, NOW, NOW, {"gone": [_known(b"d")]}, policy=Forced.FORCE)
    request = look_request(asked, (), {})
    found = LookResult(differing=dict.fromkeys(("f", "gone", "kept"), AGENTS))
    actions = actions_after(asked, request, found, {})
    assert actions.saves == {Why.OVERWRITTEN: {"f": AGENTS, "kept": AGENTS}, Why.REMOVED: {"gone": AGENTS}}
    assert (actions.removals, actions.plan.stays) == ({"gone": [_known(b"d"), AGENTS]}, {})
    actions = actions_after(asked, request, found, {"theirs": AGENTS}, ("f", "gone"))
    assert actions.saves == {Why.CONFLICT: {"theirs": AGENTS}, Why.OVERWRITTEN: {"kept": AGENTS}}
    assert (actions.removals, actions.plan.stays.keys()) == ({}, {"f", "gone"})
    replaced = replace(attempt(UNKNOWN, MANIFEST, MANIFEST), all_may_go=True)
    actions = actions_after(replaced, look_request(replaced, (), {}), LookResult(differing={"d": AGENTS}), {})
    assert (actions.replaces_directory, actions.removals) == (True, {"d": [AGENTS]})
    kept = replace(attempt(TWO, NOW, Manifest({"f": NOW["f"]})), all_may_go=True)
    actions = actions_after(kept, look_request(kept, ("kept",), {}), LookResult(differing={"kept": AGENTS}), {})
    assert (actions.saves, actions.replaces_directory) == ({Why.CONFLICT: {"kept": AGENTS}}, False)


@pytest.mark.parametrize(
    ("before", "staying", "gone", "verdict"),
    [
        ((), (), (), Verdict.INITIALIZE),
        (("kept",), ("kept",), (), Verdict.INITIALIZE),  # it is not in the archive
        ((), ("d",), (), Verdict.PACK_AGAIN),  # d/a is
        (("held",), (), (), Verdict.PACK_AGAIN),  # it need not stay any more
        (("obstructed",), (), (), Verdict.PACK_AGAIN),
        (("kept",), (), (), Verdict.INITIALIZE),  # as sent there by now
        (("left",), (), (), Verdict.PACK_AGAIN),  # to be removed by now
        (("left",), (), ("left",), Verdict.INITIALIZE),
        (("left",), (), None, Verdict.INITIALIZE),  # it stays there as configured
    ],
)
def test_the_verdict_on_an_archive(
    before: tuple[str, ...], staying: tuple[str, ...], gone: tuple[str, ...] | None, verdict: Verdict
) -> None:
    """It is made again without what stays there, or with what stays there no more."""
    content, manifest = SandboxContent(NOW, left={"left": _known(b"d")}), NOW | {"d": DIRECTORY, "d/a": _known(b"n")}
    written = Manifest({"f": NOW["f"], "d/a": manifest["d/a"]})
    asked = replace(attempt(content, manifest, written, held={"held": NOW["f"]}), obstructed={"obstructed": NOW["f"]})
    assert verdict_on(asked, before, staying, gone) is verdict
    whole = replace(asked, is_whole=True)
    assert verdict_on(whole, ("kept",), (), gone) is Verdict.PACK_AGAIN
    assert verdict_on(whole, ("f",), (), gone) is Verdict.INITIALIZE  # it has that already


def test_what_a_first_archive_could_meet() -> None:
    """What is there, or in the place of a folder of ours; an excluded folder of the agent's is not in its way."""
    first = attempt(UNKNOWN, MANIFEST, MANIFEST)
    assert not is_filled(first, LookResult(pruned=["node_modules"]))
    new, in_our_place, unread = LookResult(new={"x": AGENTS}), LookResult(pruned=["d"]), LookResult(pruned=["."])
    for found in (new, in_our_place, unread, LookResult(unlisted=1), LookResult(unseen=1)):
        assert is_filled(first, found)


def test_a_sandbox_that_lost_all() -> None:
    """More than nine of ten are missing of what was to be counted, or of the sample of what is written."""
    base = Manifest({f"{number:02}": _known(b"d") for number in range(20)})
    asked = attempt(SandboxContent(base), base, base, is_whole=True)
    request = look_request(asked, (), {})
    for missing, lost in ((18, False), (19, True)):
        gone = LookResult(differing=dict.fromkeys(list(base)[:missing], ABSENT))
        assert lost_all(asked, request, gone) is lost
        counted = LookRequest({path: LookItem((), LookAction.EXISTS) for path in base})
        assert lost_all(asked, counted, LookResult(missing=missing)) is lost


def test_what_is_in_the_way() -> None:
    """What a look saw is so; else it is as it was known, and nobody knows what a repository's place holds."""
    known = {"a": Obstacle.READ_ONLY, "b": Obstacle.FILE}
    seen = LookResult(blocked={"c": Obstacle.DIRECTORY})
    assert obstacles_seen(seen, known, ["r"]) == {"c": Obstacle.DIRECTORY}
    by_archive = LookResult(blocked={"c": Obstacle.DIRECTORY}, kinds_only=True)
    assert obstacles_seen(by_archive, known, ["r"]) == {"a": Obstacle.READ_ONLY, "c": Obstacle.DIRECTORY}
    for nobody in (None, LookResult(blocked={"c": Obstacle.DIRECTORY}, unseen=1)):
        assert obstacles_seen(nobody, known, ["r", "b"]) == {**known, "r": Obstacle.UNKNOWN}


@pytest.mark.parametrize(
    ("age_s", "repeated", "outdated"),
    [(2.0, 0, False), (2.1, 0, True), (2.1, 2, True), (2.1, 3, False), (60.1, 3, True), (-inf, 0, False)],
)
def test_a_look_that_is_outdated(age_s: float, repeated: int, *, outdated: bool) -> None:
    """After two seconds, but only so often; one that is older than a look takes always is."""
    assert is_outdated(age_s, repeated) is outdated


@pytest.mark.parametrize(
    ("before", "later", "found"),
    [
        (None, b"x", {"gone"}),
        (b"y", b"x", {"gone"}),
        (b"x", b"x", set()),  # it is saved
        (None, b"d", set()),  # as it was put there
        (None, b"h", set()),  # as it is here
    ],
)
def test_what_someone_changed_since_the_look(before: bytes | None, later: bytes | None, found: set[str]) -> None:
    """Of what the initialize may take away; what it leaves alone is looked at again before it is written."""

    def there(digest: bytes | None) -> SeenEntry:
        return SeenEntry(Kind.FILE, 0o644, 0, 8, digest=digest) if digest else SeenEntry(Kind.ABSENT)

    asked = attempt(
        SandboxContent(Manifest({"gone": _known(b"d")})), Manifest(), Manifest(), held={"gone": _known(b"h")}
    )
    look = LookResult({} if before is None else {"gone": there(before)})
    removal = LookResult({"gone": there(later)})
    assert changed_since(asked, look, removal) == set()
    assert changed_since(replace(asked, all_may_go=True), look, removal) == found


@pytest.mark.parametrize(("size_bytes", "found"), [(8, set()), (9, {"d"})])
def test_a_file_that_was_not_read_since_the_look(size_bytes: int, found: set[str]) -> None:
    """In the place of a directory of ours, by an archive that was not answered, or by someone."""
    content, here = SandboxContent(Manifest({"d": DIRECTORY})), Manifest({"d": _known(b"h")})
    asked = replace(attempt(content, here, here, {"d": [DIRECTORY]}), all_may_go=True)
    removal = LookResult({"d": SeenEntry(Kind.FILE, 0o644, 0, size_bytes)})
    assert changed_since(asked, LookResult(), removal) == found


def test_what_stays_as_it_is_there() -> None:
    """What is held, and what is kept if nothing in it changed; all below it too."""
    changed = Difference(changed=["d/a"])
    assert staying_paths(MANIFEST, changed, held=["f"], kept=["d", "e"]) == {"e", "e/c", "f"}
    assert staying_paths(MANIFEST, changed, held=[], kept=["d/a", "d/b"]) == {"d/b"}
    assert staying_paths(MANIFEST, changed, held=[], kept=[]) == set()
    without = MANIFEST.without(["d/a", "e/c"])
    assert with_staying(without, [], MANIFEST, {}) is without
    base = {"d/a": _known(b"d")}
    assert with_staying(without, ["d/a", "e/c", "f"], MANIFEST, base) == without.without(["f"]) | base


@pytest.mark.parametrize("there", [None, "base", "leftover", "unanswered"])
def test_the_first_archive(there: str | None) -> None:
    """Nothing was ever sent before it."""
    sent = Manifest({"a": _known(b"d")})
    contents = {
        None: SandboxContent(Manifest()),
        "base": SandboxContent(sent),
        "leftover": SandboxContent(Manifest(), left=sent),
        "unanswered": SandboxContent(Manifest(), (sent,)),
    }
    assert attempt(contents[there], sent, sent).is_first is (there is None)
