"""Quantities of Kubernetes ("100m", "24684092Ki") as exact numbers and back."""

from __future__ import annotations

from decimal import Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip


def amount(quantity: str | float) -> Decimal:
    """Return the number that a quantity stands for.

    Raises decimal.InvalidOperation for what is none.
    """
    text = str(quantity)
    for length in (2, 1):
        factor = _SUFFIXES.get(text[-length:])
        if factor is not None:
            return Decimal(text[:-length]) * factor
    return Decimal(text)


def plain(number: Decimal) -> str:
    """Return a number as a quantity without a suffix where it is whole, in thousandths otherwise."""
    if number == number.to_integral_value():
        return str(int(number))
    return f"{int(number * 1000)}m"


def canonical(quantity: str | float) -> str:
    """Return a quantity in the form the API stores where that differs: 0.1 becomes 100m, 1000m becomes 1.

    A quantity with a binary or decimal suffix that is whole is kept as it was written.
    """
    text = str(quantity)
    if text.endswith(("Ki", "Mi", "Gi", "Ti", "Pi", "k", "M", "G", "T", "P")) and "." not in text:
        return text
    return plain(amount(text))


def share(value: int | str, total: int, *, up: bool) -> int:
    """Return a number or a percentage of `total`, rounded up or down."""
    if isinstance(value, int):
        return value
    percent = int(value.rstrip("%"))
    return -(-percent * total // 100) if up else percent * total // 100
