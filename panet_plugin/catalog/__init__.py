"""Data for the documentation and the model index: the archs of both frameworks, and the configs as models."""
