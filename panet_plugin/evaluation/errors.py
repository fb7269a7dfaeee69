"""What is wrong with what was given to be scored."""


class EvaluationError(ValueError):
    """Images or methods that cannot be compared; the message lists the files."""


def listing(names: list[str], limit: int = 20) -> str:
    """Return names one a line, the first ``limit`` of them."""
    more = [f"... and {len(names) - limit} more"] if len(names) > limit else []
    return "".join(f"\n  {name}" for name in [*names[:limit], *more])
