"""How many examples Hypothesis tries: HYPOTHESIS_PROFILE is dev (100, the default), ci (500, the same ones each time) or long (20,000)."""

import os

from hypothesis import HealthCheck, settings

# No deadline: the machines that run this are shared, and a slow example is no wrong one.
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile(
    "ci", deadline=None, max_examples=500, derandomize=True, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
