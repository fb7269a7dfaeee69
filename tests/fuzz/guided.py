"""Fuzz readers of files from strangers, guided by coverage: ``python tests/fuzz/guided.py [TARGET ...]``.

All targets together take ``FUZZ_SECONDS`` of the environment, or ten minutes. What was found to reach new code is kept
in ``work_dirs/fuzz/TARGET`` for the next time, and what broke a reader beside it.
"""

import os
import subprocess
import sys
from pathlib import Path

WORK = Path("work_dirs/fuzz")


def fuzz(name: str, *options: str) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "tarfile", "yaml", "zipfile"]):
        import tarfile  # noqa: F401
        import zipfile  # noqa: F401

        import PIL.Image
        import yaml  # noqa: F401

        PIL.Image.init()
    # Of these all would be instrumented, which takes minutes.
    import mmengine.config  # noqa: F401
    from torch._weights_only_unpickler import Unpickler

    atheris.instrument_func(Unpickler.load)
    with atheris.instrument_imports(include=["panet_plugin"]):
        import targets
    target = targets.TARGETS[name]
    corpus = WORK / name
    corpus.mkdir(parents=True, exist_ok=True)
    for kind, contents in (("good", target.good()), ("bad", target.bad())):
        for number, content in enumerate(contents):
            (corpus / f"{kind}{number}").write_bytes(content)
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda content: targets.check(target, content))
    atheris.Fuzz()


def main() -> None:
    """Fuzz the targets that are named, or all, one after the other."""
    import targets

    names = sys.argv[1:] or list(targets.TARGETS)
    seconds = int(os.environ.get("FUZZ_SECONDS", "600")) // len(names)
    limits = ["-timeout=60", "-rss_limit_mb=4096", "-max_len=65536", "-print_final_stats=1"]
    broken = []
    for name in names:
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={WORK}/{name}-", *limits]
        if subprocess.run([sys.executable, __file__, "--one", name, *options]).returncode:
            broken.append(name)
    if broken:
        sys.exit(f"error: {', '.join(broken)}: see above; what broke them is in {WORK}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(*sys.argv[2:])
    else:
        main()
