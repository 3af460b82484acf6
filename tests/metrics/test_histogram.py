import random

from chat.histogram import Histogram


def test_each_value_is_counted_in_its_bucket():
    histogram = Histogram((1, 2, 5))
    for value in (0, 1, 1.5, 2, 3, 5, 6, 600):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2, 2]  # a bound belongs to its bucket
    assert histogram.count == 8
    assert histogram.sum == 618.5


def test_quantiles_are_upper_ends_of_buckets():
    bounds = [n / 10 for n in range(1, 11)]
    draw, histogram = random.Random(1), Histogram(bounds)
    values = sorted(draw.random() for _ in range(1000))
    for value in values:
        histogram.observe(value)
    for q in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[int(q * 1000) - 1]
        assert histogram.quantile(q) == min(bound for bound in bounds if bound >= exact)


def test_the_ends_of_quantiles():
    histogram = Histogram((1, 2))
    assert histogram.quantile(0.5) == 0.0
    histogram.observe(7)
    assert histogram.quantile(0.5) == 2  # no more is known
