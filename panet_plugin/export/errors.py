"""What can go wrong in an export."""


class ExportError(ValueError):
    """A network cannot be written in a format, or what was written does not do what the network does."""
