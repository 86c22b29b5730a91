"""What chance may do to a right program: tests of shares fail for it less than once in a hundred million runs."""

import math

TOO_RARE = 1e-9  # of each comparison; a run makes some ten of them


def plausible(found: int, share: float, times: int) -> bool:
    """Whether `found` of `times` is no rarer than that, by the tail of the binomial distribution that it lies in: near 0 and 1 it is not the normal one's."""
    beyond = range(found + 1) if found <= share * times else range(found, times + 1)
    return math.fsum(_probability(one, share, times) for one in beyond) > TOO_RARE


def _probability(found: int, share: float, times: int) -> float:
    ways = math.lgamma(times + 1) - math.lgamma(found + 1) - math.lgamma(times - found + 1)
    return math.exp(ways + found * math.log(share) + (times - found) * math.log1p(-share))
