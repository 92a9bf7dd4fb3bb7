"""Guesses the API's nearest region from the name of the time zone, for a person to confirm.

Names are those of the IANA time zone database. The guess is by the map, nothing is measured: East and South Asia and
Oceania are "asia". Any other zone gets the API's own default.
"""

from __future__ import annotations

# Asia's west, which is no farther from America's east coast.
_WEST = frozenset(
    (
        *("Aden", "Amman", "Baghdad", "Baku", "Beirut", "Damascus", "Famagusta", "Gaza", "Hebron", "Istanbul"),
        *("Jerusalem", "Kuwait", "Nicosia", "Riyadh", "Tbilisi", "Tel_Aviv", "Yerevan"),
    )
)
# The Pacific's east.
_EAST = frozenset(
    (
        *("Easter", "Galapagos", "Gambier", "Honolulu", "Johnston", "Marquesas", "Midway", "Pago_Pago", "Pitcairn"),
        *("Rarotonga", "Samoa", "Tahiti"),
    )
)
_ASIAN_AREAS = {"Asia": _WEST, "Pacific": _EAST, "Australia": frozenset(), "Indian": frozenset()}
_ASIAN_LINKS = frozenset(("Hongkong", "Japan", "NZ", "NZ-CHAT", "PRC", "ROC", "ROK", "Singapore"))
_EUROPEAN_LINKS = frozenset(
    (
        *("CET", "EET", "Eire", "GB", "GB-Eire", "MET", "Poland", "Portugal", "WET"),
        *("Atlantic/Azores", "Atlantic/Canary", "Atlantic/Madeira", "Atlantic/Reykjavik", "Asia/Nicosia"),
    )
)


def region_near(zone: str) -> str:
    """Return the API's name of the region: "us" or "asia"."""
    area, _, place = zone.partition("/")
    if zone in _ASIAN_LINKS:
        return "asia"
    return "asia" if area in _ASIAN_AREAS and place and place not in _ASIAN_AREAS[area] else "us"


def maybe_european(zone: str) -> bool:
    """True if the account may be one of the EU, whose API has an address of its own."""
    return zone.startswith("Europe/") or zone in _EUROPEAN_LINKS
