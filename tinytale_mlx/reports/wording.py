"""How figures are written: few digits, and units that a person has a feeling for."""


def quantity(value: float, _: object = None) -> str:
    """1382400 as 1.38M, for an axis or a table."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def number(value: float, unit: str = "") -> str:
    """Three or four digits that count, and the unit: megabytes of 10^6 bytes, per cent of a share, x for times."""
    if unit == "share":
        return f"{value:.1%}"
    value = value / 1e6 if unit == "bytes" else value
    if isinstance(value, int) or abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 0.01 or value == 0:
        text = f"{value:,.{3 if abs(value) < 10 else 1}f}"
    else:
        text = f"{value:.1e}"
    return f"{text} x" if unit == "x" else text


def with_unit(name: str, unit: str) -> str:
    """The heading of a column or the label of an axis, whose figures `number` writes."""
    unit = {"bytes": "MB", "x": "", "share": ""}.get(unit, unit)
    return f"{name}, {unit}" if unit else name


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """754 as 12:34, 7540 as 2:05:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
