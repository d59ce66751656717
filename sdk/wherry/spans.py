"""Spans of time, as docker says them."""


def duration(seconds: float) -> str:
    """`Less than a second`, `5 seconds`, `About a minute`, `3 hours` …, as docker counts."""
    count = int(seconds)
    if count < 1:
        return "Less than a second"
    if count == 1:
        return "1 second"
    if count < 60:
        return f"{count} seconds"
    minutes = count // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(count / 3600)
    if hours == 1:
        return "About an hour"
    for limit, unit in ((48, 1), (24 * 7 * 2, 24), (24 * 30 * 2, 24 * 7), (24 * 365 * 2, 24 * 30)):
        if hours < limit:
            name = {1: "hours", 24: "days", 24 * 7: "weeks", 24 * 30: "months"}[unit]
            return f"{hours // unit} {name}"
    return f"{hours // (24 * 365)} years"
