"""Make or complete the Python environment of this checkout: ``python requirements/install.py VENV``.

Only the standard library, and only syntax that Python 3.6 parses: an interpreter that is too old has to get as far as
the message that says so.
"""

import argparse
import hashlib
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST, NEWEST = (3, 10), (3, 12)  # BasicSR's source distribution does not build on 3.13
PINNED_FROM = (3, 11)  # the pinned NumPy and SciPy do not support 3.10
STATE = "panet_plugin.json"  # kept inside the environment: whether we made it, and what was installed into it
MODULES = {  # what a distribution of another name, or a build of one's own, may have brought already
    "torch": "torch",
    "torchvision": "torchvision",
    "opencv-python": "cv2",
    "basicsr": "basicsr",
    "mmagic": "mmagic",
    "mmengine": "mmengine",
    "mmcv-lite": "mmcv",
}
BUILD_TOOLS = {"pip", "setuptools", "wheel"}
GB = 10**9
# Measured, rounded up: (environment, downloads). On Linux torch comes with CUDA unless it is there already.
SIZE_WITH_TORCH = (6.5 * GB, 3 * GB) if platform.system() == "Linux" else (2 * GB, 1 * GB)
SIZE_WITHOUT_TORCH = (1 * GB, 0.5 * GB)

PROBE = """
import importlib.util, json, sys, sysconfig
report = {"version": sys.version_info[:2], "packages": {}, "site": sysconfig.get_paths()["purelib"]}
report["modules"] = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
if sys.version_info >= (3, 8):
    from importlib import metadata
    for found in metadata.distributions():
        if found.metadata["Name"]:
            report["packages"].setdefault(found.metadata["Name"], found.version)
print(json.dumps(report))
"""


class SetupError(Exception):
    """Something the user has to put right; its text is the whole message."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"env: {text}", flush=True)


def canonical(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_version(version: tuple, interpreter: str) -> None:
    """Raise SetupError unless Python ``version`` (major, minor) is supported."""
    if not OLDEST <= tuple(version) <= NEWEST:
        supported, given = [".".join(map(str, pair)) for pair in (OLDEST, NEWEST)], ".".join(map(str, version))
        raise SetupError(
            f"{interpreter} is Python {given}, but {supported[0]} to {supported[1]} is needed: install Python 3.11, "
            "or name another one with 'make env PYTHON=/path/to/python'"
        )


def check_can_create() -> None:
    """Raise SetupError unless the running interpreter can make the environment."""
    check_version(sys.version_info[:2], sys.executable)
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = ".".join(map(str, sys.version_info[:2]))
            raise SetupError(
                f"{sys.executable} has no '{module}' module and cannot make an environment: install it (on Debian and "
                f"Ubuntu: apt install python{version}-venv), or name another Python with 'make env PYTHON=...'"
            )


def check_disk(venv: Path, sizes: tuple) -> None:
    """Raise SetupError unless there is room for ``sizes``: the environment's bytes and those of pip's downloads."""
    disks = {}
    for folder, size in ((venv, sizes[0]), (Path(tempfile.gettempdir()), sizes[1])):
        needed, folders = disks.get(folder.stat().st_dev, (0, []))
        disks[folder.stat().st_dev] = (needed + size, [*folders, str(folder)])
    for needed, folders in disks.values():
        free = shutil.disk_usage(folders[0]).free
        if free < needed:
            raise SetupError(
                f"not enough disk space: about {needed / GB:.1f} GB are needed for {' and '.join(folders)}, "
                f"{free / GB:.1f} GB are free: make room, or use another disk with 'make env VENV=...' and TMPDIR"
            )


def fingerprint() -> str:
    """Return a hash of everything that decides what gets installed, including where this checkout is."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in (ROOT / "setup.cfg", ROOT / "pyproject.toml", Path(__file__), *sorted(REQUIREMENTS.glob("*.txt"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def read_state(venv: Path) -> dict:
    """Return what earlier runs noted in the environment; empty for one that somebody else made."""
    path = venv / STATE
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise SetupError(f"{path} is damaged: remove it") from None


def write_state(venv: Path, state: dict) -> None:
    """Note ``state`` in the environment, whole or not at all."""
    temporary = venv / f"{STATE}.tmp"
    temporary.write_text(json.dumps(state))
    temporary.replace(venv / STATE)


def create(venv: Path) -> None:
    """Make a fresh environment in place of ``venv``, which is absent, empty or an unfinished one of ours."""
    check_can_create()
    say(f"making {venv} with {sys.executable}")
    venv.mkdir(parents=True, exist_ok=True)
    write_state(venv, {"created": False})  # first in, and never removed: what is left unfinished stays known as ours
    for entry in venv.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(str(entry))
        elif entry.name != STATE:
            entry.unlink()
    command = [sys.executable, "-m", "venv", str(venv)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        raise SetupError(f"making {venv} failed: {explain(made.stdout)}")
    write_state(venv, {"created": True})


def probe(python: Path) -> dict:
    """Return the environment's Python version, site folder, packages (canonical name: version) and ``MODULES``."""
    command = [str(python), "-c", PROBE, "pip", *MODULES.values()]
    try:
        # Elsewhere than in the checkout, whose folders would pass for installed modules.
        report = json.loads(subprocess.check_output(command, cwd=tempfile.gettempdir()).decode())
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{python} does not run ({error}): remove that environment or name another one") from None
    report["packages"] = {canonical(name): version for name, version in report["packages"].items()}
    return report


def drop_unfinished(site: Path) -> None:
    """Forget packages whose installation was cut short, so that pip installs them again.

    pip writes INSTALLER once all of a package's files are there.
    """
    for info in site.glob("*.dist-info"):
        if not (info / "INSTALLER").exists():
            say(f"{info.name} was left unfinished and is installed again")
            shutil.rmtree(str(info))


def read_requirements(*names: str) -> dict:
    """Return the lines of ``requirements/NAME.txt`` by canonical package name."""
    lines = [line for name in names for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines()]
    lines = [line.split("#")[0].strip() for line in lines]
    return {canonical(re.match(r"[\w.-]+", line).group()): line for line in lines if line}


def absent(requirements: dict, report: dict) -> dict:
    """Return the ``requirements`` less those that another distribution provides in the user's own environment.

    A distribution of the same name stays in: pip then checks that its version will do.
    """
    return {
        name: line
        for name, line in requirements.items()
        if name in report["packages"] or MODULES.get(name) not in report["modules"]
    }


def keep(report: dict) -> str:
    """Return constraints that hold every package of the user's own environment at its version."""
    number = r"(\d+!)?\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[\w.-]+)?"  # pip refuses other spellings
    return "".join(
        f"{name}=={version}\n"
        for name, version in sorted(report["packages"].items())
        if name not in BUILD_TOOLS and re.fullmatch(number, version)
    )


def explain(log: str) -> str:
    """Return the one-line reason for a failure, given what pip or venv printed."""
    if re.search(r"No space left on device|Errno 28\b|Disk quota exceeded", log):
        return "no space left on the disk of the environment, of TMPDIR or of pip's cache: make room and run it again"
    if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError", log):
        return "the package index cannot be reached: check the network and pip's settings ('pip config list')"
    if re.search(r"ResolutionImpossible|conflicting dependencies", log):
        return (
            "the requirements do not go with a package that this environment has, which is kept as it is (see above): "
            "change it yourself, or let 'make env' make an environment of its own"
        )
    missing = re.search(r"No matching distribution found for ([^\s(]+)", log)
    if missing:
        return f"there is no ready-built package '{missing.group(1)}' for this Python on {platform.platform()}"
    lines = log.strip().splitlines()
    errors = [line for line in lines if re.match(r"\w*error\b", line, re.IGNORECASE)]
    return (errors or lines or ["no reason was given"])[-1]


def pip_install(python: Path, *arguments: str) -> None:
    """Run ``pip install`` with its progress shown; raise SetupError with the reason when it fails."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-warn-conflicts", *arguments]
    # Only the errors pass through here: while its standard output is a terminal, pip draws progress bars.
    log = []
    with subprocess.Popen(command, cwd=str(ROOT), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            sys.stderr.write(line)
            log.append(line)
    if process.returncode:
        raise SetupError(explain("".join(log)))


def check_imports(python: Path) -> None:
    """Raise SetupError unless the packages that depend on the machine load."""
    for module, hint in (
        ("torch", ""),
        ("torchvision", "; it has to come from the same source as torch"),
        ("cv2", "; a system library may be missing (on Debian and Ubuntu: apt install libgl1 libglib2.0-0)"),
    ):
        command = [str(python), "-c", f"import {module}"]
        loaded = subprocess.run(command, cwd=tempfile.gettempdir(), stderr=subprocess.PIPE, text=True)
        if loaded.returncode:
            raise SetupError(f"'import {module}' fails in this environment: {explain(loaded.stderr)}{hint}")


def install(venv: Path, more: tuple = ()) -> None:
    """Make ``venv`` if need be and bring it up to date, with ``more`` requirement files; return at once when it is."""
    python = venv / "bin" / "python"
    state, wanted = read_state(venv), fingerprint()
    added = set(state.get("more", ())) if state.get("installed") == wanted else set()
    if state.get("installed") == wanted and added.issuperset(more) and python.exists():
        return
    ours = "created" in state or not venv.exists() or not any(venv.iterdir())
    if ours and not (state.get("created") and python.exists()):
        create(venv)
    elif not python.exists():
        raise SetupError(f"{venv} is not a Python environment (it has no bin/python): remove it or name another one")

    report = probe(python)
    check_version(report["version"], str(python))
    if "pip" not in report["modules"]:
        raise SetupError(f"{venv} has no pip: run '{python} -m ensurepip' first")
    if ours:
        drop_unfinished(Path(report["site"]))
        report = probe(python)
    torch = "torch" in (report["packages"] if ours else report["modules"])
    check_disk(venv, SIZE_WITHOUT_TORCH if torch else SIZE_WITH_TORCH)

    packages = read_requirements("torch", "runtime", "sample", "tests", *more)
    frameworks = read_requirements("frameworks")
    with tempfile.TemporaryDirectory() as folder:
        constraints = REQUIREMENTS / "constraints.txt"
        pinned = tuple(report["version"]) >= PINNED_FROM
        if not ours:
            say(f"{venv} is an environment of your own: packages are added, and none but build tools is replaced")
            packages = absent(packages, report)
            frameworks = {name: line for name, line in frameworks.items() if MODULES[name] not in report["modules"]}
            constraints, pinned = Path(folder) / "constraints.txt", True
            constraints.write_text(keep(report))
        say("installing the requirements")
        # Wheels only: nothing here may ask for a compiler.
        pins = ["--constraint", str(constraints)] if pinned else []
        pip_install(python, "--only-binary", ":all:", *pins, *packages.values())
    if frameworks:
        say("installing the frameworks")
        pip_install(python, "--no-deps", "--no-build-isolation", *frameworks.values())
    say("installing this checkout")
    pip_install(python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    check_imports(python)
    write_state(venv, {**read_state(venv), "installed": wanted, "more": sorted(added.union(more))})
    say(f"ready: {venv}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make or complete the Python environment of this checkout.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("venv", nargs="?", help="the environment's folder: made if absent, completed if it exists")
    action.add_argument("--check", action="store_true", help="only tell whether this Python can make an environment")
    parser.add_argument(
        "--with",
        dest="more",
        action="append",
        choices=["browser", "docs"],
        default=[],
        help="what one target alone needs",
    )
    arguments = parser.parse_args()
    try:
        check_version(sys.version_info[:2], sys.executable)
        if arguments.check:
            check_can_create()
        else:
            install(ROOT / arguments.venv, tuple(arguments.more))
    except SetupError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {explain(str(error))}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; run it again to go on from here")


if __name__ == "__main__":
    main()
