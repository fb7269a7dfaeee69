"""Create or update the Python environment of this checkout: ``python requirements/install.py VENV [GROUP ...]``.

uv resolves and installs packages. This script adds what uv does not provide: it creates and pins its own environments
but never replaces packages of others, detects modules that a distribution with another name has installed, and installs
BasicSR and MMagic without their own requirements.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
GROUPS = ("torch", "runtime", "sample", "tests")
BUILD_TOOLS = ("pip", "setuptools", "wheel")
STATE = "panet_plugin.json"  # in the environment: whether we created it, and what is installed
# Modules that a distribution with another name, or a local build, may provide.
MODULES = {
    **{name: name for name in ("torch", "torchvision", "basicsr", "mmagic", "mmengine")},
    **{"opencv-python": "cv2", "mmcv-lite": "mmcv"},
}
NUMBER = r"(\d+!)?\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[\w.-]+)?"  # other versions are invalid in constraints
# BasicSR's setup.py reads its version with exec(), which can no longer write into a function's locals() on Python 3.13.
# Found on the path of that build alone, this writes the names back through the caller's frame.
SITECUSTOMIZE = """
import builtins, sys
plain = builtins.exec
def exec(source, *scopes, **options):
    frame = sys._getframe(1)
    if scopes or options or frame.f_locals is frame.f_globals:
        return plain(source, *(scopes or [frame.f_globals]), **options)
    names = dict(frame.f_locals)
    plain(source, frame.f_globals, names)
    frame.f_locals.update(names)
if sys.version_info >= (3, 13):
    builtins.exec = exec
"""
PROBE = """
import importlib.util, json, sys
from importlib import metadata
print(json.dumps({
    "modules": [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
    "packages": {found.metadata["Name"]: found.version for found in metadata.distributions() if found.metadata["Name"]},
}))
"""


def run(*command, **variables: str) -> None:
    """Run a command with its output shown; exit with its name if it fails."""
    if subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **variables}).returncode:
        sys.exit(f"error: '{' '.join(map(str, command[:4]))} ...' failed: see above; fix the problem and run it again")


def canonical(name: str) -> str:
    """Return the normalized name of a distribution."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements(*groups: str) -> dict:
    """Return the lines of ``requirements/GROUP.txt`` by canonical package name."""
    lines = [line for group in groups for line in (REQUIREMENTS / f"{group}.txt").read_text().splitlines()]
    lines = [line.split("#")[0].strip() for line in lines]
    return {canonical(re.match(r"[\w.-]+", line).group()): line for line in lines if line}


def fingerprint() -> str:
    """Return a hash of everything that determines what is installed, including the path of this checkout."""
    digest = hashlib.sha256(str(ROOT).encode())
    version = ROOT / "panet_plugin" / "__init__.py"
    files = (version, ROOT / "setup.cfg", ROOT / "pyproject.toml", Path(__file__), *sorted(REQUIREMENTS.glob("*.txt")))
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write_state(venv: Path, **state) -> None:
    """Store ``state`` in the environment atomically."""
    (venv / f"{STATE}.tmp").write_text(json.dumps(state))
    (venv / f"{STATE}.tmp").replace(venv / STATE)


def probe(python: Path) -> dict:
    """Return the packages (name: version) of an environment, and which of ``MODULES`` it can import."""
    # Not in the checkout, whose folders would look like installed modules.
    found = subprocess.run(
        [str(python), "-E", "-c", PROBE, *MODULES.values()], cwd=tempfile.gettempdir(), capture_output=True, text=True
    )
    if found.returncode:
        sys.exit(f"error: {python} does not run: remove that environment or choose another one\n{found.stderr}")
    return json.loads(found.stdout)


def install(venv: Path, groups: tuple = ()) -> None:
    """Create or update ``venv`` with ``GROUPS`` and ``groups``; do nothing if it is up to date."""
    python = venv / "bin" / "python"
    state = json.loads((venv / STATE).read_text()) if (venv / STATE).exists() else {}
    wanted = fingerprint()
    done = set(state["groups"]) if state.get("installed") == wanted and python.exists() else None
    if done is not None and done.issuperset(groups):
        return
    groups = sorted({*groups, *(done or ())})
    ours = state.get("ours", not venv.exists() or not any(venv.iterdir()))
    if ours and not (state.get("installed") and python.exists()):  # missing or incomplete: create it again
        print(f"making {venv} with {sys.executable}", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir(parents=True)
        write_state(venv, ours=True)
        run(sys.executable, "-m", "venv", venv)
    elif not python.exists():
        sys.exit(f"error: {venv} is not a Python environment (no bin/python): remove it or choose another one")
    write_state(venv, ours=ours)

    if not shutil.which("uv"):
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv")
    uv = [*(["uv"] if shutil.which("uv") else [python, "-m", "uv"]), "pip", "install", "--python", python]
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):  # every process would compile again
        uv += ["--compile-bytecode"]
    packages, frameworks = read_requirements(*GROUPS, *groups), read_requirements("frameworks")
    with tempfile.TemporaryDirectory() as folder:
        constraints = REQUIREMENTS / "constraints.txt"
        if not ours:  # never replace installed packages
            found = probe(python)
            installed = {canonical(name): version for name, version in found["packages"].items()}
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text(
                "".join(
                    f"{name}=={version}\n"
                    for name, version in sorted(installed.items())
                    if name not in BUILD_TOOLS and re.fullmatch(NUMBER, version)
                )
            )
            there = {name for name, module in MODULES.items() if module in found["modules"]}
            # Installed packages of the same name stay in the list to check their versions, except the frameworks.
            packages = {name: line for name, line in packages.items() if name in installed or name not in there}
            frameworks = {name: line for name, line in frameworks.items() if name not in there}
        # Only wheels: no compiler may be needed.
        run(*uv, "--only-binary", ":all:", "--constraint", constraints, *packages.values())
        (Path(folder) / "sitecustomize.py").write_text(SITECUSTOMIZE)
        if frameworks:
            run(*uv, "--no-deps", "--no-build-isolation", *frameworks.values(), PYTHONPATH=folder)
    run(*uv, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    # Check system libraries, which may be missing (Debian and Ubuntu: apt install libgl1).
    run(python, "-c", "import torch, torchvision, cv2")
    write_state(venv, ours=ours, installed=wanted, groups=groups)


@contextlib.contextmanager
def alone(venv: Path):
    """Wait until no other process is using this environment."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    with (venv.parent / f"{venv.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute()
    with alone(target):
        install(target, tuple(sys.argv[2:]))
