"""Arguments that several commands take."""

import argparse
import math


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more; raise ArgumentTypeError for anything else."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("give a number of seconds, 0 or more")
    return number
