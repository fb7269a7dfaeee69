"""The commands of ``panet``, which are also the scripts in ``tools/``."""
