"""What users run: ``panet NAME``, and the scripts in ``tools/``, which are the same."""
