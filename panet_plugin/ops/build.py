"""Compile the CPU kernel of pyramid attention into the user's cache: ``python -m panet_plugin.ops.build``."""

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from panet_plugin.errors import PanetError

SOURCES = Path(__file__).with_name("csrc")
SOURCE = SOURCES / "pyramid_attention.cpp"
CHECK = SOURCES / "check.cpp"

# The kernel marks the products that must be rounded before addition, so contraction is safe elsewhere.
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast")
# Tried in this order until one compiles: not every compiler supports the processor or OpenMP.
_OPTIONAL_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())


class BuildError(PanetError, RuntimeError):
    """The kernel could not be compiled; the message states why."""


def cache_dir() -> Path:
    """Return the folder of compiled kernels: ``$PANET_PLUGIN_CACHE``, or one in the user's cache directory."""
    if explicit := os.environ.get("PANET_PLUGIN_CACHE"):
        return Path(explicit)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "panet_plugin"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise BuildError("the user has no home directory; set PANET_PLUGIN_CACHE to a writable folder") from error
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "panet_plugin"


def build() -> Path:
    """Compile the kernel for this machine unless it exists, and return the path of the shared library.

    Processes may build at the same time: each compiles in a folder of its own and renames the result into place.

    Raises:
        BuildError: If there is no C++ compiler, it fails, or the cache cannot be written.
    """
    sources = [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]
    contents = [path.read_bytes() for path in sources]
    stem = f"pyramid_attention-{_digest(*contents, repr((_FLAGS, _OPTIONAL_FLAGS)).encode(), _cpu())}"
    folder = cache_dir()
    compiler = find_compiler()
    if compiler is None:
        # The compiler's version only matters if there is one to compile it again.
        if built := sorted(folder.glob(f"{stem}-*.so")):
            return built[0]
        raise BuildError("no C++ compiler found; install g++ or clang++, or set CXX")
    library = folder / f"{stem}-{_digest(repr(compiler).encode(), _run([*compiler, '--version']).encode())}.so"
    if not library.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # In a folder, because the linker gives a new file the permissions that the user's umask leaves: a cache may
            # be shared.
            partial = tempfile.TemporaryDirectory(prefix=f"{stem}-", suffix=".partial", dir=folder)
        except OSError as error:
            raise BuildError(f"cannot write to {folder} ({error.strerror}); set PANET_PLUGIN_CACHE") from error
        with partial:
            output = Path(partial.name) / library.name
            _compile(compiler, [SOURCE, "-shared", "-fPIC"], output)
            output.replace(library)
    return library


def check() -> None:
    """Compile the kernel's self-check with the address and undefined-behavior sanitizers and run it.

    It compares the kernel with a direct evaluation of the formulas, over odd sizes down to one pixel, once with the
    processor's vectors, once without its matrix unit and once with scalars.

    Raises:
        BuildError: If there is no compiler or the check fails; the message contains its output.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler found; install g++ or clang++, or set CXX")
    sanitize = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", CHECK]
    with tempfile.TemporaryDirectory() as folder:
        for variant in ([], ["-DPANET_NO_TILES"], ["-DPANET_SCALAR"]):
            program = Path(folder) / "check"
            _compile(compiler, [*variant, *sanitize], program)
            print(*variant, _run([str(program)]).strip())


def find_compiler() -> list[str] | None:
    """Return the command of a C++ compiler: ``$CXX`` or the first of c++, g++ and clang++; None if there is none.

    Raises:
        BuildError: If ``$CXX`` is not a program.
    """
    if command := shlex.split(os.environ.get("CXX", "")):
        if not shutil.which(command[0]):
            raise BuildError(f"CXX={os.environ['CXX']}: no such program")
        return command
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def _compile(compiler: list[str], arguments: list, output: Path) -> None:
    for flags in _OPTIONAL_FLAGS:
        try:
            _run([*compiler, *_FLAGS, *flags, *map(str, arguments), "-o", str(output)])
            return
        except BuildError as error:
            failure = error
    raise failure


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{(result.stdout + result.stderr)[-2000:]}")
    return result.stdout


def _cpu() -> bytes:
    """Identify the instruction set, so that different machines with a shared home directory use different kernels."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = {line for line in lines if line.startswith(("flags", "Features", "CPU part"))}
    return repr((platform.machine(), platform.processor(), sorted(features))).encode()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def main() -> None:
    """Build the kernel and print its path, or run its self-check."""
    parser = argparse.ArgumentParser(prog="python -m panet_plugin.ops.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="run the kernel's self-check under the sanitizers instead")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check()
        else:
            print(build())
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
