import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rooms.rates import Pace, TokenBucket


def test_burst_then_a_steady_rate():
    bucket = TokenBucket(Pace(burst=10, per_second=5))
    assert [bucket.take(100.0) for _ in range(10)] == [0.0] * 10
    assert bucket.take(100.0) == pytest.approx(0.2)
    assert bucket.take(100.1) == pytest.approx(0.1)
    assert bucket.take(100.2) == 0.0
    assert bucket.take(100.2) == pytest.approx(0.2)


def test_a_refusal_takes_nothing():
    bucket = TokenBucket(Pace(1, 1))
    assert bucket.take(0.0) == 0.0
    assert all(bucket.take(0.5) == pytest.approx(0.5) for _ in range(100))
    assert bucket.take(1.0) == 0.0


def test_long_rest_gives_no_more_than_the_burst():
    bucket = TokenBucket(Pace(3, 1))
    bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(3)] == [0.0] * 3
    assert bucket.take(1e6) > 0


def test_give_back_returns_the_token():
    bucket = TokenBucket(Pace(2, 0.1))
    bucket.take(5.0)
    bucket.take(5.0)
    assert bucket.take(5.0) == pytest.approx(10)
    bucket.give_back()
    assert bucket.take(5.0) == 0.0
    assert bucket.take(5.0) == pytest.approx(10)


def test_giving_back_late_never_adds_to_the_burst():
    bucket = TokenBucket(Pace(2, 1))
    bucket.take(0.0)
    bucket.give_back()
    assert [bucket.take(50.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(1)]


def test_a_rested_bucket_may_be_forgotten():
    bucket = TokenBucket(Pace(2, 1))
    assert bucket.is_full(0.0)
    bucket.take(0.0)
    bucket.take(0.0)
    assert not bucket.is_full(1.9)
    assert bucket.is_full(2.0)


@pytest.mark.parametrize(("burst", "per_second"), [(0, 1), (-1, 1), (1, 0), (1, -2), (1, float("nan"))])
def test_impossible_buckets_are_refused(burst, per_second):
    with pytest.raises(ValueError, match="bucket"):
        TokenBucket(Pace(burst, per_second))


@given(
    burst=st.integers(1, 20),
    per_second=st.floats(0.001, 1000),
    start=st.floats(0, 1e7),
    pauses=st.lists(st.floats(0, 5), max_size=60),
)
def test_who_waits_as_told_is_let_in_and_the_rate_holds(burst, per_second, start, pauses):
    bucket = TokenBucket(Pace(burst, per_second))
    now = start
    for granted, pause in enumerate(pauses, 1):
        now += pause
        wait_s = bucket.take(now)
        if wait_s:
            now += wait_s
            assert bucket.take(now) == 0.0
        assert granted <= burst + (now - start) * per_second * (1 + 1e-9) + len(pauses) * 1e-6 * per_second + 1e-3
