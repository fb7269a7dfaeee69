"""What the project's pages and indexes list: the archs of both frameworks, and the configs as models."""
