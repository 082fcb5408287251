"""Places in a question -> names of time zones."""

import re
import zoneinfo
from functools import cache

import msgspec

# Places that give no zone its name.
_PLACES = {
    "beijing": "Asia/Shanghai",
    "boston": "America/New_York",
    "california": "America/Los_Angeles",
    "china": "Asia/Shanghai",
    "england": "Europe/London",
    "france": "Europe/Paris",
    "germany": "Europe/Berlin",
    "hanoi": "Asia/Ho_Chi_Minh",
    "india": "Asia/Kolkata",
    "italy": "Europe/Rome",
    "korea": "Asia/Seoul",
    "miami": "America/New_York",
    "mumbai": "Asia/Kolkata",
    "saigon": "Asia/Ho_Chi_Minh",
    "san francisco": "America/Los_Angeles",
    "seattle": "America/Los_Angeles",
    "spain": "Europe/Madrid",
    "thailand": "Asia/Bangkok",
    "utc": "UTC",
    "vietnam": "Asia/Ho_Chi_Minh",
    "washington": "America/New_York",
}


class Place(msgspec.Struct, frozen=True):
    place: str  # as it is written in its zone's name, or in the table
    zone: str


def zone_in(text: str) -> Place | None:
    """The first place that follows "in", "at", "for" or "of", or a zone by its full name."""
    zones = _zones()
    for name in re.findall(r"\b[A-Za-z]+(?:/[A-Za-z_+-]+)+", text):
        if name.lower() in zones:
            return zones[name.lower()]
    for words in re.findall(r"\b(?:in|at|for|of) (?:the )?([\w'. -]+)", text.lower()):
        parts = words.replace(".", "").split()
        for length in range(min(3, len(parts)), 0, -1):
            found = zones.get(" ".join(parts[:length]))
            if found is not None:
                return found
    return None


@cache  # the zone files of the machine, read once, when a place is first asked for
def _zones() -> dict[str, Place]:
    zones: dict[str, Place] = {}
    for zone in sorted(zoneinfo.available_timezones()):
        area, _, city = zone.rpartition("/")
        place = city.replace("_", " ")
        zones[zone.lower()] = Place(place, zone)
        if area and not area.startswith("Etc"):
            zones.setdefault(place.lower(), Place(place, zone))
    for name, zone in _PLACES.items():
        zones[name] = Place(name.upper() if name == "utc" else name.title(), zone)
    return zones
