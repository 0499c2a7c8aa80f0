"""How sure a share is."""

import math


def wilson(share: float, number: float, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share (Wilson, 1927), which has a width at 0 and at 1 too.

    Args:
        share: what was observed, 0 … 1.
        number: of how many, above 0; an effective number need not be whole.
        z: half the interval's width in standard deviations; 95 % unless told otherwise.

    Returns:
        low and high, 0 … 1.
    """
    spread = z * z / number
    centre = share + spread / 2
    half = z * math.sqrt(max(share * (1 - share), 0.0) / number + spread / number / 4)
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    return min(max(low, 0.0), share), max(min(high, 1.0), share)
