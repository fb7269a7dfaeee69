"""What is wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A file or state dict is not a checkpoint that we can use; the message says what was found."""


def shorten(names: str | list[str], limit: int = 300) -> str:
    """Return names, joined and cut to ``limit`` characters."""
    text = names if isinstance(names, str) else ", ".join(names)
    return text if len(text) <= limit else text[: limit - 3] + "..."
