"""A token bucket: how much may be done at once, and how soon again."""


def refilled(tokens: float, passed_s: float, *, per_minute: int) -> float:
    """Return the tokens of a bucket of ``per_minute`` after a time in which nothing was taken from it."""
    return min(float(per_minute), tokens + passed_s * per_minute / 60)


def spent(tokens: float) -> float:
    """Return what is left after one more was wanted, which is allowed where there is a whole one."""
    return tokens - 1 if tokens >= 1 else tokens
