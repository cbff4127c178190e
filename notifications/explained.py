"""Why this quantity? A stored sizing, told to the follower it belongs to: a sentence and the figures behind it.

A follower sees the ratio and their own figures, never the trader's portfolio.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Context, Decimal
from typing import Any

from bson import Decimal128

from followers.decimals import to_decimal
from notifications.choices import EXITS, Reason, Side
from notifications.rendering import percent, plain

Document = dict[str, Any]
Step = dict[str, str]
_SHOWN = Context(prec=6, rounding=ROUND_DOWN)

WHY_NONE: dict[str, str] = {
    Reason.NO_PORTFOLIO: "No quantity could be worked out, because your portfolio's value is not known here.",
    Reason.BELOW_MIN_QTY: "Your share is smaller than the smallest quantity that can be traded.",
    Reason.BELOW_MIN_NOTIONAL: "Your order would be worth less than the smallest that can be placed.",
    Reason.CURRENCY_MISMATCH: "Your portfolio is kept in another currency than this trade.",
    Reason.UNREADABLE_FIGURES: "Your figures could not be read here. Support can mend that.",
}


def explained(alert: Document) -> Document | None:
    """`summary` and `steps` of {label, value}; None where nothing was sized.

    Parameters:
      alert: A stored notification: sizing, side, action, currency.
    """
    sizing = alert["sizing"]
    if sizing is None or sizing.get("suggested_qty") is None:
        return _unsized(sizing)
    is_exit = alert["action"] in EXITS
    steps = _steps(alert, sizing)
    if sizing["reason"]:
        summary = WHY_NONE.get(sizing["reason"], "No quantity was worked out.")
    elif is_exit:
        summary = _exit(sizing, alert["side"])
    else:
        summary = _entry(sizing, alert)
    return {"summary": summary, "steps": steps}


def _unsized(sizing: Document | None) -> Document | None:
    if sizing is None or not sizing.get("reason"):
        return None
    return {"summary": WHY_NONE.get(sizing["reason"], "No quantity was worked out."), "steps": []}


def _entry(sizing: Document, alert: Document) -> str:
    done = "bought" if alert["side"] == Side.BUY else "sold"
    words = f"The trader {done} {plain(sizing['executed_qty'])}. "
    words += f"Your portfolio is {_ratio(sizing)} times the trader's"
    if _number(sizing, "multiplier") != 1:
        words += f", and your multiplier is {plain(sizing['multiplier'])}"
    quantity = plain(sizing["suggested_qty"])
    if sizing["capped"]:
        return f"{words}; your limit per order brings it down to {quantity}."
    return f"{words}, so your share is {quantity}."


def _exit(sizing: Document, side: str) -> str:
    fraction, about = sizing.get("exit_fraction"), plain(sizing["suggested_qty"])
    estimate = f" By your share that is about {about}." if about not in {"", "0"} else ""
    if not fraction:
        return f"The trader is leaving; how much of the position that is, is not known.{estimate}"
    whole = to_decimal(fraction) == 1
    share = "all" if whole else percent(fraction)
    held = "you hold" if side == Side.SELL else "you are short"
    verb = "sell" if side == Side.SELL else "buy back"
    return f"The trader gave up {share} of the position: {verb} {share} of what {held}.{estimate}"


def _steps(alert: Document, sizing: Document) -> list[Step]:
    money = f" {alert['currency']}" if alert["currency"] else ""
    given: list[tuple[str, str]] = [("The trader's quantity", plain(sizing["executed_qty"]))]
    if sizing["exit_fraction"]:
        given.append(("Given up by the trader", percent(sizing["exit_fraction"])))
    if sizing["follower_portfolio"] is not None:
        given.append(("Your portfolio for this trader", plain(sizing["follower_portfolio"]) + money))
    if _number(sizing, "ratio"):
        given.append(("Your portfolio to the trader's", f"× {_ratio(sizing)}"))
    if _number(sizing, "multiplier") not in {None, Decimal(1)}:
        given.append(("Your multiplier", f"× {plain(sizing['multiplier'])}"))
    if sizing["capped"]:
        given.append(("Your limit per order", plain(sizing["max_notional"]) + money))
    if _number(sizing, "quantity_step"):
        given.append(("Rounded down to steps of", plain(sizing["quantity_step"])))
    if sizing["reason"] == Reason.BELOW_MIN_QTY and _number(sizing, "min_quantity"):
        given.append(("Least quantity", plain(sizing["min_quantity"])))
    if sizing["reason"] == Reason.BELOW_MIN_NOTIONAL:
        given.append(("Least order value", plain(sizing["min_notional"]) + money))
    given.append(("Your quantity", plain(sizing["suggested_qty"])))
    return [{"label": label, "value": value} for label, value in given]


def _ratio(sizing: Document) -> str:
    return plain(_SHOWN.plus(to_decimal(sizing["ratio"]) or Decimal(0)))


def _number(sizing: Document, name: str) -> Decimal | None:
    value = sizing.get(name)
    return to_decimal(value) if isinstance(value, Decimal128) else None
