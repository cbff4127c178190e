"""What import_followers makes of a file: good lines, bad lines, and the same lines again."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from followers import clock, upserts
from followers.import_lines import MAX_LINE_BYTES, parse_line
from followers.imports import Counts, ImportSummary, RejectedLine, import_followers
from followers.members import BadValueError
from followers.models import Endpoint, Follow, Follower, Trader, follower_bucket
from followers.mongo import collection

LINE: dict[str, Any] = {
    "traderId": "T-17", "traderPortfolio": "100000", "followerId": "F-1", "followerPortfolio": "10000",
    "currency": "INR", "multiplier": "1", "allocation": None, "locale": "en", "timezone": "Asia/Kolkata",
    "endpoints": [{"channel": "fcm", "address": "tok-0123456789", "platform": "android"}],
}  # fmt: skip
LEAST: dict[str, Any] = {"traderId": "T-17", "followerId": "F-1", "followerPortfolio": "10000"}
ABSENT = object()


def line(base: dict[str, Any] = LINE, **fields: Any) -> bytes:
    return json.dumps({k: v for k, v in {**base, **fields}.items() if v is not ABSENT}).encode() + b"\n"


def run(*lines: bytes, chunk_lines: int = 2_000) -> tuple[ImportSummary, list[RejectedLine]]:
    rejected: list[RejectedLine] = []
    summary = import_followers(io.BytesIO(b"".join(lines)), rejected.append, chunk_lines=chunk_lines)
    return summary, rejected


def everything() -> dict[str, list[dict[str, Any]]]:
    """All that is stored, to the last field."""
    return {m.__name__: list(collection(m).find().sort("_id", 1)) for m in (Trader, Follower, Follow, Endpoint)}


# --- Reading a line (no database) ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("literal", "stored"),
    [
        ('"10000.50"', "10000.50"),
        ("10000", "10000"),
        ("0.1", "0.1"),
        ("0.1234567890123456789", "0.123456789012345678900"[:21]),
        ("12345678901234567.8901", "12345678901234567.8901"),
        ('"1e5"', "100000"),
        ("1E5", "100000"),
        ("1000000000000000000", "1000000000000000000"),
        ("0", "0"),
        ('"1e-18"', "1E-18"),
    ],
)
def test_a_number_keeps_every_digit(literal: str, stored: str) -> None:
    raw = line().replace(b'"10000"', literal.encode())
    assert str(parse_line(raw).follower["portfolio_value"]) == str(Decimal(stored))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{not json", "not JSON"),
        (b'{"traderId": "\xff"}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"NaN", "not JSON"),
        (b'{"a": 1.5, "b": ' + b"[" * 1000 + b"]" * 1000 + b"}", ""),
        (line(traderId=ABSENT), "traderId is missing"),
        (line(traderId=" "), "traderId is missing"),
        (line(followerId=None), "followerId is missing"),
        (line(followerPortfolio=ABSENT), "followerPortfolio is missing"),
        (line(followerPortfolio=None), "followerPortfolio is missing"),
        (line(traderId=17), "traderId must be a string"),
        (line(traderId="x" * 129), "128"),
        (line(followerId="a\x00b"), "control character"),
        (line(followerPortfolio="ten"), "“ten” is not a number"),
        (line(followerPortfolio="NaN"), "not a number"),
        (line(followerPortfolio="-1"), "must not be negative"),
        (line(followerPortfolio=True), "must be a number"),
        (line(followerPortfolio=["1"]), "must be a number"),
        (line(followerPortfolio="1e19"), "between 1e-18 and 1e18"),
        (line(followerPortfolio="1e-19"), "between 1e-18 and 1e18"),
        (line(followerPortfolio="1e999999999999999999999"), "between 1e-18 and 1e18"),
        (line(followerPortfolio="1" + "0" * 17 + "." + "1" * 17), "34 digits"),
        (line(multiplier="x"), "multiplier “x” is not a number"),
        (line(allocation={}), "allocation must be a number"),
        (line(currency="X" * 13), "currency has 13 characters"),
        (line(locale="english please"), "no language tag"),
        (line(timezone="Mars/Olympus"), "IANA time zone database"),
        (line(timezone="../etc/passwd"), "IANA time zone database"),
        (line(endpoints={}), "endpoints must be a list"),
        (line(endpoints=["x"]), "endpoints[0] must be an object"),
        (line(endpoints=[{"address": "x"}]), "endpoints[0].channel is missing"),
        (line(endpoints=[{"channel": "pigeon", "address": "x"}]), "endpoints[0].channel “pigeon” is unknown"),
        (line(endpoints=[{"channel": "in_app", "address": "x"}]), "“in_app” is unknown"),
        (line(endpoints=[{"channel": "sms"}]), "endpoints[0].address is missing"),
        (line(endpoints=[{"channel": "sms", "address": 1}]), "address must be a string"),
        (line(endpoints=[{"channel": "sms", "address": "5550100"}]), "E.164"),
        (line(endpoints=[{"channel": "fcm", "address": "t", "platform": "toaster"}]), "platform “toaster” is unknown"),
        (line(endpoints=[{"channel": "fcm", "address": "t"}] * 101), "101 entries"),
    ],
)
def test_a_bad_line_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(BadValueError) as error:
        parse_line(raw)
    assert reason in str(error.value)


def test_a_reason_never_repeats_the_address() -> None:
    with pytest.raises(BadValueError) as error:
        parse_line(line(endpoints=[{"channel": "sms", "address": "+1 555 SECRET"}]))
    assert "SECRET" not in str(error.value)


# --- Importing -------------------------------------------------------------------------------------------------------
db = pytest.mark.django_db(transaction=True)


@db
def test_a_line_becomes_four_rows() -> None:
    summary, rejected = run(line())

    assert rejected == []
    assert summary == ImportSummary(1, 0, Counts(1), Counts(1), Counts(1), Counts(1))
    trader, follower = Trader.objects.get(), Follower.objects.get()
    assert (trader.external_id, trader.portfolio_value, trader.currency) == ("T-17", Decimal(100000), "INR")
    assert (follower.external_id, follower.portfolio_value, follower.currency) == ("F-1", Decimal(10000), "INR")
    assert (follower.locale, follower.timezone, follower.preferences) == ("en", "Asia/Kolkata", {})
    follow = Follow.objects.get()
    assert (follow.trader_id, follow.follower_id, follow.ended_at) == (trader.pk, follower.pk, None)
    assert (follow.multiplier, follow.allocation) == (Decimal(1), None)
    assert follow.bucket == follower_bucket(follower.pk)
    endpoint = Endpoint.objects.get()
    assert (endpoint.address, endpoint.platform, endpoint.active) == ("tok-0123456789", "android", True)
    assert b"tok-0123456789" not in str(collection(Endpoint).find_one()).encode()


@db
def test_the_rows_are_those_that_the_models_would_have_stored() -> None:
    run(line())
    imported = {m: set(collection(m).find_one() or {}) for m in (Trader, Follower, Follow, Endpoint)}
    trader, follower = Trader.objects.create(external_id="T"), Follower.objects.create(external_id="F")
    Follow.objects.create(trader=trader, follower=follower)
    Endpoint.objects.create(follower=follower, channel="fcm", address="other")
    for model, fields in imported.items():
        assert fields == set(collection(model).find_one({}, sort=[("_id", -1)]) or {})


@db
def test_only_three_fields_are_needed() -> None:
    run(line(LEAST))
    follower, trader, follow = Follower.objects.get(), Trader.objects.get(), Follow.objects.get()
    assert (follower.currency, follower.locale, follower.timezone) == ("", "en", "UTC")
    assert (trader.portfolio_value, trader.currency) == (None, "")
    assert (follow.multiplier, follow.allocation) == (Decimal(1), None)


@db
def test_importing_again_changes_nothing() -> None:
    lines = [line(followerId=f"F-{n}", endpoints=[{"channel": "fcm", "address": f"tok-{n}"}]) for n in range(50)]
    run(*lines, chunk_lines=20)
    before = everything()
    summary, _ = run(*lines, chunk_lines=20)
    assert everything() == before
    for counts in (summary.traders, summary.followers, summary.follows, summary.endpoints):
        assert (counts.inserted, counts.updated) == (0, 0)


@db
def test_numbers_that_are_equal_are_no_change() -> None:
    run(line())
    before = everything()
    run(line(followerPortfolio="10000.00", traderPortfolio=100000.0, multiplier="1.0"))
    assert everything() == before


@db
def test_what_differs_is_changed_and_what_is_absent_stays() -> None:
    run(line(allocation="500"))
    follower = Follower.objects.get()
    summary, _ = run(line(LEAST, followerPortfolio="20000"))
    follower_now, follow = Follower.objects.get(), Follow.objects.get()
    assert (follower_now.portfolio_value, follower_now.timezone) == (Decimal(20000), "Asia/Kolkata")
    assert follower_now.portfolio_as_of is not None
    assert follower.portfolio_as_of is not None
    assert follower_now.portfolio_as_of >= follower.portfolio_as_of
    assert follow.allocation == Decimal(500)
    assert (summary.followers, summary.follows) == (Counts(0, 1, 0), Counts(0, 0, 1))

    run(line(LEAST, allocation=None))
    assert Follow.objects.get().allocation is None


@db
@pytest.mark.parametrize("chunk_lines", [1, 2_000])
def test_the_last_line_about_a_follow_wins(chunk_lines: int) -> None:
    run(line(multiplier="2"), line(multiplier="3", followerPortfolio="7"), chunk_lines=chunk_lines)
    assert Follow.objects.get().multiplier == Decimal(3)
    assert Follower.objects.get().portfolio_value == Decimal(7)


@db
def test_a_follow_that_ended_starts_again() -> None:
    run(line())
    long_ago = clock.now() - timedelta(days=9)
    Follow.objects.update(since=long_ago, ended_at=long_ago + timedelta(days=1))
    run(line())
    follow = Follow.objects.get()
    assert follow.ended_at is None
    assert follow.since > long_ago + timedelta(days=8)  # What was traded in between was not for this follower.


@db
def test_since_of_a_follow_that_holds_stays() -> None:
    run(line())
    long_ago = clock.now() - timedelta(days=9)
    Follow.objects.update(since=long_ago, ended_at=clock.now() + timedelta(days=1))
    run(line(multiplier="2"))
    follow = Follow.objects.get()
    assert (follow.since, follow.ended_at, follow.multiplier) == (long_ago, None, Decimal(2))


@db
def test_an_address_leaves_its_former_owner() -> None:
    run(line())
    run(line(followerId="F-2"))
    endpoint = Endpoint.objects.get()
    assert endpoint.follower_id == Follower.objects.get(external_id="F-2").pk


@db
def test_an_address_of_a_community_channel_becomes_the_followers() -> None:
    run(line(endpoints=[]))
    Endpoint.objects.create(trader=Trader.objects.get(), channel="sms", address="+14155550100")
    run(line(endpoints=[{"channel": "sms", "address": "+1 (415) 555-0100"}]))
    endpoint = Endpoint.objects.get()
    assert (endpoint.trader_id, endpoint.follower_id) == (None, Follower.objects.get().pk)


@db
def test_a_deactivated_device_comes_back_when_it_is_registered_again() -> None:
    run(line())
    long_ago = clock.now() - timedelta(days=9)
    Endpoint.objects.update(active=False, deactivated_reason="gone", deactivated_at=long_ago, registered_at=long_ago)
    run(line(endpoints=[]))
    assert not Endpoint.objects.get().active
    run(line())
    endpoint = Endpoint.objects.get()
    assert (endpoint.active, endpoint.deactivated_reason, endpoint.deactivated_at) == (True, "", None)
    assert endpoint.registered_at > long_ago


@db
def test_bad_lines_are_named_and_the_rest_imported() -> None:
    too_long = b'{"x": "' + b"y" * (MAX_LINE_BYTES * 2) + b'"}\n'
    summary, rejected = run(
        b"\xef\xbb\xbf" + line(), b"\n", b"oops\n", too_long, line(followerId="F-2", endpoints=[])[:-1] + b"\r\n", b"{}"
    )
    assert [r.number for r in rejected] == [3, 4, 6]
    assert (summary.lines, summary.rejected) == (5, 3)
    assert set(Follower.objects.values_list("external_id", flat=True)) == {"F-1", "F-2"}


@db
def test_somebody_who_inserts_the_same_at_the_same_time_does_not_fail_the_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    insert = upserts.insert_missing
    overtaken: list[str] = []

    def overtake(target: Any, documents: list[dict[str, Any]]) -> list[int]:
        if target.name == "followers_follower" and not overtaken:
            overtaken.append("F-1")
            Follower.objects.create(external_id="F-1", portfolio_value=Decimal(1))
        return insert(target, documents)

    monkeypatch.setattr(upserts, "insert_missing", overtake)
    summary, rejected = run(line())
    assert (rejected, overtaken) == ([], ["F-1"])
    assert Follower.objects.get().portfolio_value == Decimal(10000)
    assert Follow.objects.get().follower_id == Follower.objects.get().pk
    assert summary.followers == Counts(0, 1, 0)


# --- The command -----------------------------------------------------------------------------------------------------
def command(*args: str) -> tuple[str, str, int]:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("import_followers", *args, stdout=out, stderr=err)
    except SystemExit as stop:
        return out.getvalue(), err.getvalue(), int(stop.code or 0)
    return out.getvalue(), err.getvalue(), 0


@db
def test_the_command_tells_what_it_did(tmp_path: Path) -> None:
    file = tmp_path / "f.ndjson"
    file.write_bytes(line())
    out, err, status = command(str(file))
    assert out.splitlines()[0] == "1 of 1 lines imported, 0 bad."
    assert (err, status) == ("", 0)


@db
def test_the_command_shows_twenty_bad_lines_and_writes_all(tmp_path: Path) -> None:
    file, rejects = tmp_path / "f.ndjson", tmp_path / "r.ndjson"
    file.write_bytes(line() + b"oops\n" * 25)
    out, err, status = command(str(file), "--rejects", str(rejects))
    assert status == 1
    assert out.startswith("1 of 26 lines imported, 25 bad.")
    assert err.count("is not JSON") == 20
    assert "and 5 more bad lines" in err
    assert [json.loads(r)["line"] for r in rejects.read_text().splitlines()] == list(range(2, 27))


@db
def test_the_command_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line())))
    assert command("-")[2] == 0
    assert Follower.objects.count() == 1


def test_a_missing_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read: No such file or directory"):
        command(str(tmp_path / "none"))
