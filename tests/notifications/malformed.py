"""Messages that are no trade events, each with the code and a piece of the sentence that it must be refused with."""

from __future__ import annotations

import json

from notifications.event_json import MAX_DEPTH, MAX_MESSAGE_BYTES
from notifications.events import RejectCode
from tests.notifications.builders import DETAILS, MISSING, OPTION, message, raw_message

C = RejectCode


def nested(levels: int) -> str:
    """Return lists inside lists, as JSON."""
    return "[" * levels + "]" * levels


# name → (message, code, a piece of the sentence)
MALFORMED: dict[str, tuple[bytes | None, RejectCode, str]] = {
    # The message as a whole.
    "tombstone": (None, C.EMPTY_MESSAGE, "no value"),
    "no bytes": (b"", C.EMPTY_MESSAGE, "no value"),
    "over the size limit": (message(note="x" * MAX_MESSAGE_BYTES), C.TOO_LARGE, "bytes"),
    "not UTF-8": (b'{"eventId": "\xff"}', C.BAD_UTF8, "Byte 13"),
    "UTF-16": (message().decode().encode("utf-16"), C.BAD_UTF8, "Byte 0"),
    "byte order mark": (b"\xef\xbb\xbf" + message(), C.BAD_JSON, "character 0"),
    "raw surrogate": (raw_message(symbol='"\ud800"'), C.BAD_UTF8, "not UTF-8"),
    "overlong NUL": (message().replace(b"RELIANCE", b"\xc0\x80"), C.BAD_UTF8, "not UTF-8"),
    "not JSON": (b"BUY 50 RELIANCE", C.BAD_JSON, "not JSON"),
    "blanks": (b"   ", C.BAD_JSON, "not JSON"),
    "cut off": (message()[:-3], C.BAD_JSON, "not JSON"),
    "two texts": (message() + message(), C.BAD_JSON, "not JSON"),
    "single quotes": (message().replace(b'"', b"'"), C.BAD_JSON, "not JSON"),
    "trailing comma": (message()[:-1] + b",}", C.BAD_JSON, "not JSON"),
    "raw NUL in a string": (message().replace(b"RELIANCE", b"RELI\x00NCE"), C.BAD_JSON, "not JSON"),
    "raw newline in a string": (message().replace(b"RELIANCE", b"RELI\nNCE"), C.BAD_JSON, "not JSON"),
    "a list": (b"[]", C.WRONG_TYPE, "a list"),
    "a string": (b'"event"', C.WRONG_TYPE, '"event"'),
    "null": (b"null", C.WRONG_TYPE, "null"),
    "a number": (b"17", C.WRONG_TYPE, "17"),
    "a duplicate name": (message()[:-1] + b', "eventId": "other"}', C.DUPLICATE_KEY, '"eventId"'),
    "a duplicate name inside": (raw_message(note='{"a": 1, "a": 1}'), C.DUPLICATE_KEY, '"a"'),
    "a little too deep": (raw_message(note=nested(MAX_DEPTH - 1)), C.TOO_DEEP, "note[0]"),
    "far too deep": (raw_message(note=nested(400_000)), C.TOO_DEEP, "nested"),
    "far too deep and open": (b'{"a":' * 150_000, C.TOO_DEEP, "nested"),
    "lone surrogate": (raw_message(symbol=r'"\ud800"'), C.BAD_CHARACTER, "tradeDetails.symbol"),
    "lone surrogate in an unknown field": (raw_message(note=r'["\udfff"]'), C.BAD_CHARACTER, "tradeDetails.note[0]"),
    "lone surrogate in a name": (raw_message(note=r'{"\ud83d": 1}'), C.BAD_CHARACTER, "A name in tradeDetails.note"),
    "NUL in an id": (raw_message(eventId=r'"a\u0000b"'), C.BAD_CHARACTER, "eventId"),
    "NUL in an unknown field": (raw_message(note=r'"\u0000"'), C.BAD_CHARACTER, "tradeDetails.note"),
    "NUL in a name": (raw_message(note=r'{"\u0000": 1}'), C.BAD_CHARACTER, "A name in"),
    "newline in an id": (message(traderId="T-17\nT-18"), C.BAD_CHARACTER, "traderId"),
    "escape in a symbol": (message(symbol="\x1b[2J"), C.BAD_CHARACTER, "tradeDetails.symbol"),
    # Missing.
    **{
        f"{name} {how}": (message(**{name: value}), C.MISSING_FIELD, f"{name} is missing")
        for name in ("eventId", "version", "traderId", "executedAt", "tradeDetails")
        for how, value in (("absent", MISSING), ("null", None), ("empty", ""))
    },
    **{
        f"{name} {how}": (message(**{name: value}), C.MISSING_FIELD, f"tradeDetails.{name} is missing")
        for name in ("symbol", "side", "productType", "quantity", "price")
        for how, value in (("absent", MISSING), ("null", None), ("empty", ""), ("blank", "  "))
    },
    "details empty": (message(tradeDetails={}), C.MISSING_FIELD, "tradeDetails.productType"),
    "future without expiry": (message(productType="FUTURES"), C.MISSING_FIELD, "tradeDetails.expiryDate"),
    "option without expiry": (message(**OPTION | {"expiryDate": None}), C.MISSING_FIELD, "tradeDetails.expiryDate"),
    "option without strike": (message(**OPTION | {"strike": MISSING}), C.MISSING_FIELD, "tradeDetails.strike"),
    "option without right": (message(**OPTION | {"right": ""}), C.MISSING_FIELD, "tradeDetails.right"),
    # Types.
    "eventId a number": (message(eventId=17), C.WRONG_TYPE, "eventId is 17, not a string"),
    "eventId a decimal number": (message(eventId=1.5), C.WRONG_TYPE, "eventId is 1.5"),
    "eventId a list": (message(eventId=["a"]), C.WRONG_TYPE, "eventId is a list"),
    "traderId an object": (message(traderId={"id": "T"}), C.WRONG_TYPE, "traderId is an object"),
    "traderId true": (message(traderId=True), C.WRONG_TYPE, "traderId is true"),
    "details a string": (message(tradeDetails="BUY"), C.WRONG_TYPE, 'tradeDetails is "BUY"'),
    "details a list": (message(tradeDetails=[DETAILS]), C.WRONG_TYPE, "tradeDetails is a list"),
    "side a number": (message(side=1), C.WRONG_TYPE, "tradeDetails.side is 1"),
    "action false": (message(action=False), C.WRONG_TYPE, "tradeDetails.action is false"),
    "priority a list": (message(priority=[]), C.WRONG_TYPE, "priority is a list"),
    "quantity true": (message(quantity=True), C.WRONG_TYPE, "tradeDetails.quantity is true, not a number"),
    "price an object": (message(price={}), C.WRONG_TYPE, "tradeDetails.price is an object"),
    "positionBefore a list": (message(positionBefore=[0]), C.WRONG_TYPE, "tradeDetails.positionBefore"),
    "orderId a number": (message(orderId=5), C.WRONG_TYPE, "tradeDetails.orderId is 5"),
    "exchange a number": (message(exchange=5), C.WRONG_TYPE, "tradeDetails.exchange is 5"),
    "executedAt a number": (message(executedAt=1795168800), C.WRONG_TYPE, "executedAt is 1795168800"),
    "expiryDate a number": (message(**OPTION | {"expiryDate": 20261126}), C.WRONG_TYPE, "tradeDetails.expiryDate"),
    # Version and words.
    "version 2": (message(version=2), C.UNKNOWN_VERSION, "version is 2"),
    "version 0": (message(version=0), C.UNKNOWN_VERSION, "version is 0"),
    "version 1.5": (message(version=1.5), C.UNKNOWN_VERSION, "version is 1.5"),
    "version of a thousand digits": (raw_message(version="1" * 1000), C.UNKNOWN_VERSION, "1111"),
    "version a string": (message(version="1"), C.WRONG_TYPE, 'version is "1"'),
    "version true": (message(version=True), C.WRONG_TYPE, "version is true"),
    "side unknown": (message(side="HOLD"), C.NOT_IN_ENUMERATION, 'tradeDetails.side is "HOLD", not one of BUY, SELL'),
    "side in lower case": (message(side="buy"), C.NOT_IN_ENUMERATION, "tradeDetails.side"),
    "action unknown": (message(action="EXIT"), C.NOT_IN_ENUMERATION, "tradeDetails.action"),
    "product unknown": (message(productType="BONDS"), C.NOT_IN_ENUMERATION, "tradeDetails.productType"),
    "priority unknown": (message(priority="urgent"), C.NOT_IN_ENUMERATION, "priority"),
    "priority in upper case": (message(priority="HIGH"), C.NOT_IN_ENUMERATION, "priority"),
    "right unknown": (message(**OPTION | {"right": "STRADDLE"}), C.NOT_IN_ENUMERATION, "tradeDetails.right"),
    # Numbers.
    "NaN": (raw_message(quantity="NaN"), C.NOT_A_NUMBER, "tradeDetails.quantity is NaN"),
    "Infinity": (raw_message(price="Infinity"), C.NOT_A_NUMBER, "tradeDetails.price is Infinity"),
    "-Infinity": (raw_message(price="-Infinity"), C.NOT_A_NUMBER, "tradeDetails.price is -Infinity"),
    "NaN in an unknown field": (raw_message(note="[NaN]"), C.NOT_A_NUMBER, "tradeDetails.note[0] is NaN"),
    "Infinity in an unknown field": (raw_message(note="[-Infinity]"), C.NOT_A_NUMBER, "note[0] is -Infinity"),
    "NaN as text": (message(quantity="NaN"), C.NOT_A_NUMBER, 'tradeDetails.quantity is "NaN"'),
    "signalling NaN as text": (message(price="sNaN"), C.NOT_A_NUMBER, "tradeDetails.price"),
    "Infinity as text": (message(price="Infinity"), C.NOT_A_NUMBER, "tradeDetails.price"),
    "a word": (message(quantity="fifty"), C.NOT_A_NUMBER, '"fifty"'),
    "underscores": (message(quantity="1_000"), C.NOT_A_NUMBER, "1_000"),
    "thousands separators": (message(quantity="1,000"), C.NOT_A_NUMBER, "1,000"),
    "blanks around": (message(quantity=" 50 "), C.NOT_A_NUMBER, "quantity"),
    "digits of another script": (message(quantity="٥٠"), C.NOT_A_NUMBER, "quantity"),
    "hexadecimal": (message(quantity="0x32"), C.NOT_A_NUMBER, "0x32"),
    "a lone point": (message(quantity="."), C.NOT_A_NUMBER, "quantity"),
    "an empty exponent": (message(quantity="5e"), C.NOT_A_NUMBER, "quantity"),
    "leading zero as a JSON number": (raw_message(quantity="050"), C.BAD_JSON, "not JSON"),
    "35 digits": (message(quantity="1" + "0" * 16 + "." + "1" * 18), C.TOO_MANY_DIGITS, "more than 34 digits"),
    "35 digits as a JSON number": (raw_message(price="1." + "2" * 34), C.TOO_MANY_DIGITS, "tradeDetails.price"),
    "35 digits ending in zeros": (message(price="1." + "0" * 34), C.TOO_MANY_DIGITS, "tradeDetails.price"),
    "half a million digits": (raw_message(quantity="9" * 500_000), C.TOO_MANY_DIGITS, "999…"),
    "half a million digits as text": (message(quantity="9" * 500_000), C.TOO_MANY_DIGITS, '999"…'),
    "half a million leading zeros": (message(quantity="0" * 500_000 + "1"), C.TOO_MANY_DIGITS, '000"…'),
    "huge exponent": (raw_message(quantity="1e999999999"), C.OUT_OF_RANGE, "1e999999999"),
    "exponent beyond Decimal": (raw_message(quantity="1e" + "9" * 50), C.OUT_OF_RANGE, "quantity"),
    "exponent beyond Decimal as text": (message(price="-1e" + "9" * 50), C.OUT_OF_RANGE, "price"),
    "tiny exponent": (raw_message(price="1e-999999999"), C.OUT_OF_RANGE, "1e-999999999"),
    "exponent below Decimal": (raw_message(price="1e-" + "9" * 50), C.OUT_OF_RANGE, "price"),
    "above 1e18": (message(quantity="1000000000000000001"), C.OUT_OF_RANGE, "between 1e-18 and 1e18"),
    "below 1e-18": (message(price="0.0000000000000000009"), C.OUT_OF_RANGE, "between 1e-18 and 1e18"),
    "below -1e18": (message(price="-1e19"), C.OUT_OF_RANGE, "price"),
    **{
        f"{name} {value}": (message(**{name: value}), C.OUT_OF_RANGE, f"tradeDetails.{name} is {json.dumps(value)}")
        for name in ("quantity", "traderPortfolio", "quantityStep", "contractMultiplier")
        for value in ("0", 0, "-0.0", "0e5", "-5", -5)
    },
    **{
        f"{name} negative": (message(**{name: "-1"}), C.OUT_OF_RANGE, f"tradeDetails.{name}")
        for name in ("minQuantity", "minNotional")
    },
    # Lengths.
    "eventId too long": (message(eventId="e" * 129), C.TOO_LONG, "eventId has 129 characters, more than 128"),
    "traderId too long": (message(traderId="t" * 129), C.TOO_LONG, "traderId has 129"),
    "orderId too long": (message(orderId="o" * 129), C.TOO_LONG, "tradeDetails.orderId has 129"),
    "symbol too long": (message(symbol="s" * 65), C.TOO_LONG, "tradeDetails.symbol has 65 characters, more than 64"),
    "exchange too long": (message(exchange="x" * 65), C.TOO_LONG, "tradeDetails.exchange"),
    "currency too long": (message(currency="x" * 65), C.TOO_LONG, "tradeDetails.currency"),
    # Moments and dates.
    **{
        f"executedAt {value}": (message(executedAt=value), code, value)
        for value, code in {
            "2026-11-20T06:00:00": C.BAD_TIMESTAMP,  # No offset.
            "2026-11-20": C.BAD_TIMESTAMP,
            "2026-11-20T06:00Z": C.BAD_TIMESTAMP,
            "20261120T060000Z": C.BAD_TIMESTAMP,
            "2026-W47-5T06:00:00Z": C.BAD_TIMESTAMP,
            "2026-11-20T06:00:00,5Z": C.BAD_TIMESTAMP,
            "2026-11-20T06:00:00.Z": C.BAD_TIMESTAMP,
            "2026-11-20T06:00:00+0530": C.BAD_TIMESTAMP,
            "2026-11-20T06:00:00+24:00": C.BAD_TIMESTAMP,
            "2026-02-30T06:00:00Z": C.BAD_TIMESTAMP,
            "2026-11-20T24:00:00Z": C.BAD_TIMESTAMP,
            "2026-11-20T06:60:00Z": C.BAD_TIMESTAMP,
            "2026-11-20T06:00:61Z": C.BAD_TIMESTAMP,
            "2026-11-20T06:00:60Z": C.BAD_TIMESTAMP,  # A leap second ends a day of UTC.
            "9999-12-31T23:59:60Z": C.BAD_TIMESTAMP,
            "0000-01-01T00:00:00Z": C.BAD_TIMESTAMP,
            "9999-12-31T23:59:59-01:00": C.BAD_TIMESTAMP,  # Year 10000.
            "0001-01-01T00:00:00+01:00": C.BAD_TIMESTAMP,  # Year 0.
            "1969-12-31T23:59:59.999Z": C.OUT_OF_RANGE,
            "1970-01-01T00:00:00+00:01": C.OUT_OF_RANGE,
            "yesterday": C.BAD_TIMESTAMP,
        }.items()
    },
    **{
        f"expiryDate {value}": (message(**OPTION | {"expiryDate": value}), C.BAD_DATE, value)
        for value in ("2026-02-30", "26-11-2026", "20261126", "2026-11-26T15:30:00", "2026-11-26T25:00:00Z", "NOV26")
    },
    "bad expiryDate of a share": (message(expiryDate="soon"), C.BAD_DATE, "tradeDetails.expiryDate"),
}  # fmt: skip
