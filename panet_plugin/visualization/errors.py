"""What is wrong with what was asked to be shown."""


class VisualizationError(ValueError):
    """A block, a pixel or a picture that cannot be shown; the message says what can."""
