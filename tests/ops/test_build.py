import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from panet_plugin.ops import build

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def source(monkeypatch, tmp_path):
    """A kernel that compiles at once, and a cache of its own."""
    path = tmp_path / "kernel.cpp"
    path.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(build, "SOURCE", path)
    monkeypatch.setenv("PANET_PLUGIN_CACHE", str(tmp_path / "cache"))
    return path


def test_builds_a_library_once(source):
    library = build.build()
    assert ctypes.CDLL(str(library)).answer() == 42
    written = library.stat().st_mtime_ns
    assert build.build() == library
    assert library.stat().st_mtime_ns == written
    assert [p.name for p in library.parent.iterdir()] == [library.name]


def test_a_shared_cache_serves_other_users(source):
    mask = os.umask(0o022)
    try:
        assert stat.S_IMODE(build.build().stat().st_mode) & 0o077 == 0o055
    finally:
        os.umask(mask)


def test_a_changed_source_is_built_anew(source):
    first = build.build()
    source.write_text('extern "C" int answer() { return 43; }\n')
    second = build.build()
    assert second != first
    assert ctypes.CDLL(str(second)).answer() == 43


def test_a_changed_header_is_built_anew(source):
    header = source.with_name("answer.h")
    header.write_text("constexpr int ANSWER = 42;\n")
    source.write_text('#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n')
    first = build.build()
    header.write_text("constexpr int ANSWER = 43;\n")
    second = build.build()
    assert second != first
    assert ctypes.CDLL(str(second)).answer() == 43


def test_the_compiler_and_its_arguments_are_part_of_the_key(source, monkeypatch):
    first = build.build()
    monkeypatch.setenv("CXX", f"{build.find_compiler()[0]} -DUNUSED")
    assert build.build() != first


def test_running_the_module_warns_of_nothing():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "panet_plugin.ops.build", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(Path(build.__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_uses_the_first_compiler_that_exists(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert build.find_compiler() is None
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert build.find_compiler() == ["g++"]
    monkeypatch.setenv("CXX", f"{compiler} -m64")
    assert build.find_compiler() == [str(compiler), "-m64"]


def test_without_a_compiler_a_library_built_before_serves(source, monkeypatch, tmp_path):
    library = build.build()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert build.build() == library
    source.write_text("int changed;\n")
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler"):
        build.build()


def test_a_failing_compiler_leaves_nothing_behind(source, tmp_path):
    source.write_text("this is not C++\n")
    with pytest.raises(build.BuildError, match=r"kernel\.cpp"):
        build.build()
    assert list((tmp_path / "cache").iterdir()) == []


def test_flags_the_compiler_does_not_know_are_left_out(source, monkeypatch):
    monkeypatch.setattr(build, "_OPTIONAL_FLAGS", (("--no-such-flag",), ()))
    assert ctypes.CDLL(str(build.build())).answer() == 42


@pytest.mark.parametrize("obstacle", ["file", "read-only"])
def test_an_unwritable_cache_is_an_error(source, monkeypatch, tmp_path, obstacle):
    place = tmp_path / "place"
    if obstacle == "file":
        place.write_text("in the way")
    else:
        place.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        if os.access(place, os.W_OK):
            pytest.skip("this user may write anywhere")
    monkeypatch.setenv("PANET_PLUGIN_CACHE", str(place / "cache"))
    with pytest.raises(build.BuildError, match=r"cannot write to .*place"):
        build.build()


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PANET_PLUGIN_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert build.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("PANET_PLUGIN_CACHE")
    assert build.cache_dir() == tmp_path / "b" / "panet_plugin"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert tmp_path / "c" in build.cache_dir().parents


def test_processes_may_build_at_the_same_time(source, tmp_path):
    # Each compiles: the compiler waits until the other one has started, too.
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) exec {build.find_compiler()[0]} --version;; esac\n'
        f"touch {tmp_path}/$$.started\nuntil [ $(ls {tmp_path} | grep -c started) -ge 2 ]; do sleep 0.01; done\n"
        f'exec {build.find_compiler()[0]} "$@"\n'
    )
    compiler.chmod(0o755)
    program = (
        "import sys; from pathlib import Path; from panet_plugin.ops import build;"
        "build.SOURCE = Path(sys.argv[1]); print(build.build())"
    )
    command = [sys.executable, "-c", program, str(source)]
    environment = {**os.environ, "CXX": str(compiler), "PYTHONPATH": str(Path(build.__file__).parents[2])}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert first == second
    assert ctypes.CDLL(first).answer() == 42
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [Path(first).name]


def test_a_compiler_that_is_asked_for_and_not_there(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(build.BuildError, match="CXX=no-such-compiler -O3: no such program"):
        build.build()
