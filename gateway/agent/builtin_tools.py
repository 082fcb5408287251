"""The tools that every gateway has, by name."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.agent.tools import Tool, ToolError


def get_current_datetime(timezone: str | None = None) -> str:
    """Say what time it is, in an IANA time zone or else in the machine's own."""
    if timezone is None:
        moment = datetime.now(UTC).astimezone()
    else:
        try:
            moment = datetime.now(ZoneInfo(timezone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ToolError(
                f"There is no time zone {timezone!r}. Use an IANA name such as Europe/Berlin or Asia/Tokyo."
            ) from error
    return moment.strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z)")


BUILTIN = {
    tool.name: tool
    for tool in (
        Tool(
            name="get_current_datetime",
            description="Get the current date, time and weekday.",
            parameters={
                "type": "object",
                "properties": {
                    "timezone": {
                        "type": "string",
                        "description": "IANA time zone such as Europe/Berlin; leave out for the local time.",
                    }
                },
                "additionalProperties": False,
            },
            run=get_current_datetime,
        ),
    )
}
