"""How much of a trade fits a follower's portfolio. Pure: exact decimal arithmetic, no database, no settings.

Sources of the figures: the trade's own side comes with the event (`TradeEventData`), the follower's with the follow.
Everything that is the same for all followers of one trade is worked out once, in `Sizer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

from notifications.choices import Reason
from notifications.event_fields import MAX_DIGITS
from notifications.events import TradeEventData

_ZERO = Decimal(0)
_ONE = Decimal(1)
_TRAPS = [InvalidOperation, DivisionByZero, Overflow]

EXACT = Context(prec=120, rounding=ROUND_DOWN, traps=_TRAPS)
"""Holds every product here exactly: at most three factors of 34 digits. Used through its methods, which costs a tenth
of a `with localcontext()` per follower and leaves the thread's own context alone."""

STORED = Context(prec=MAX_DIGITS, rounding=ROUND_DOWN, traps=_TRAPS)
"""What a Decimal128 keeps; never rounds up, so that nobody is told to trade more than their share."""


@dataclass(frozen=True, slots=True)
class SizingInputs:
    """The trade's side. Quantities in units or contracts, amounts in `currency`; numbers of at most 34 digits."""

    executed_qty: Decimal  # > 0
    price: Decimal  # Of any sign; at 0 a notional says nothing, and no cap applies.
    trader_portfolio: Decimal | None  # None or ≤ 0 = not known.
    currency: str = ""  # "" = not known.
    quantity_step: Decimal = _ONE  # > 0
    min_quantity: Decimal = _ZERO
    min_notional: Decimal = _ZERO
    contract_multiplier: Decimal = _ONE  # > 0
    is_exit: bool = False
    exit_fraction: Decimal | None = None  # 0 < fraction ≤ 1, of what is held.

    @classmethod
    def of(cls, event: TradeEventData, trader_portfolio: Decimal | None = None, currency: str = "") -> SizingInputs:
        """Take over an event; the arguments are the Trader's stored figures, for what the event does not say."""
        return cls(
            executed_qty=event.quantity,
            price=event.price,
            trader_portfolio=trader_portfolio if event.trader_portfolio is None else event.trader_portfolio,
            currency=event.currency or currency,
            quantity_step=event.quantity_step,
            min_quantity=event.min_quantity,
            min_notional=event.min_notional,
            contract_multiplier=event.contract_multiplier,
            is_exit=event.is_exit,
            exit_fraction=event.exit_fraction,
        )


@dataclass(frozen=True, slots=True)
class Sizing:
    """What one follower is told, and from what. Numbers have at most 34 significant digits, rounded down."""

    suggested_qty: Decimal  # A multiple of the step, wherever 34 digits can hold it; also stands when it is too small.
    ratio: Decimal  # The follower's portfolio (or allocation) / the trader's; 0 where it is not known.
    reason: str  # "" = fine; else the `Reason` for which an entry is skipped. Always "" for exits.
    notional: Decimal  # suggested_qty * |price| * contract_multiplier, in the trade's currency.
    exit_fraction: Decimal | None  # Exits: the share of the holding to give up, where the trade tells it.
    is_estimate: bool  # Exits: suggested_qty is only what the ratio says, the follower may hold more or less.
    capped: bool  # max_notional made the quantity smaller.
    follower_portfolio: Decimal | None  # What was counted: the allocation if one is set.
    multiplier: Decimal
    max_notional: Decimal | None
    currency: str  # The follower's; "" = taken to be the trade's.
    trade: SizingInputs


class Sizer:
    """Sizes one trade for any number of followers.

    With q = executed quantity * portfolio * multiplier / trader's portfolio and c = max notional / (|price| * contract
    multiplier), the quantity is min(floor(q / step), floor(c / step)) * step: each floor is one integer division of two
    exact products, so that no rounding in between can lose or gain a step.
    """

    __slots__ = ("_divisor", "_step_notional", "_trade", "_trader_portfolio", "_unit_notional")

    def __init__(self, trade: SizingInputs) -> None:
        self._trade = trade
        portfolio = trade.trader_portfolio
        self._trader_portfolio = portfolio if portfolio is not None and portfolio > 0 else None
        self._divisor = EXACT.multiply(self._trader_portfolio or _ZERO, trade.quantity_step)
        self._unit_notional = EXACT.multiply(trade.price.copy_abs(), trade.contract_multiplier)
        self._step_notional = EXACT.multiply(self._unit_notional, trade.quantity_step)

    def size(
        self,
        follower_portfolio: Decimal | None,
        allocation: Decimal | None = None,
        multiplier: Decimal = _ONE,
        max_notional: Decimal | None = None,
        currency: str = "",
    ) -> Sizing:
        """Return the follower's sizing; never raises, whatever figures a follower has.

        An allocation, the amount set aside for this trader, stands in for the portfolio. A portfolio that is missing or
        not above 0 counts as not known, and so does everything where one of the figures is NaN or beyond all reason.
        """
        portfolio = follower_portfolio if allocation is None else allocation
        trade = self._trade
        trader_portfolio = self._trader_portfolio
        try:
            if portfolio is None or trader_portfolio is None or portfolio <= 0:
                return self._unsized(Reason.NO_PORTFOLIO, portfolio, multiplier, max_notional, currency)
            if currency and currency != trade.currency and _differ(currency, trade.currency):
                return self._unsized(Reason.CURRENCY_MISMATCH, portfolio, multiplier, max_notional, currency)
            wanted = EXACT.multiply(EXACT.multiply(trade.executed_qty, portfolio), multiplier)
            if not wanted.is_finite():
                return self._unsized(Reason.NO_PORTFOLIO, portfolio, multiplier, max_notional, currency)
            steps = EXACT.divide_int(wanted, self._divisor)
            capped = False
            if max_notional is not None and self._step_notional:
                allowed = EXACT.divide_int(max_notional, self._step_notional)
                if allowed < steps:
                    steps, capped = allowed, True
            quantity = STORED.multiply(steps, trade.quantity_step) if steps > 0 else _ZERO
            notional = EXACT.multiply(quantity, self._unit_notional)
            ratio = STORED.divide(portfolio, trader_portfolio)
        except ArithmeticError:
            return self._unsized(Reason.NO_PORTFOLIO, portfolio, multiplier, max_notional, currency)
        return Sizing(
            quantity,
            ratio,
            "" if trade.is_exit else self._shortfall(quantity, notional),
            STORED.plus(notional),
            trade.exit_fraction,
            trade.is_exit,
            capped,
            portfolio,
            multiplier,
            max_notional,
            currency,
            trade,
        )

    def _shortfall(self, quantity: Decimal, notional: Decimal) -> str:
        if not quantity or quantity < self._trade.min_quantity:
            return Reason.BELOW_MIN_QTY.value
        if notional < self._trade.min_notional:
            return Reason.BELOW_MIN_NOTIONAL.value
        return ""

    def _unsized(
        self,
        reason: Reason,
        portfolio: Decimal | None,
        multiplier: Decimal,
        max_notional: Decimal | None,
        currency: str,
    ) -> Sizing:
        """No ratio can be formed: an entry is skipped, an exit goes out with its fraction alone."""
        trade = self._trade
        return Sizing(
            suggested_qty=_ZERO,
            ratio=_ZERO,
            reason="" if trade.is_exit else reason.value,
            notional=_ZERO,
            exit_fraction=trade.exit_fraction,
            is_estimate=trade.is_exit,
            capped=False,
            follower_portfolio=portfolio,
            multiplier=multiplier,
            max_notional=max_notional,
            currency=currency,
            trade=trade,
        )


def size_alert(
    trade: SizingInputs,
    follower_portfolio: Decimal | None,
    *,
    allocation: Decimal | None = None,
    multiplier: Decimal = _ONE,
    max_notional: Decimal | None = None,
    currency: str = "",
) -> Sizing:
    """Size one trade for one follower; for many followers keep a `Sizer`."""
    return Sizer(trade).size(follower_portfolio, allocation, multiplier, max_notional, currency)


def _differ(follower: str, trade: str) -> bool:
    """Tell two known currencies apart, in whatever case they were written."""
    return bool(trade) and follower.upper() != trade.upper()
