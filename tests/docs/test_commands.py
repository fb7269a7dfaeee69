"""Every command of the pages names scripts, targets, options, configs and keys that exist."""

import configparser
import functools
import itertools
import re
import shlex

import pages
import parsers
import pytest
from mmengine.config import Config

from panet_plugin.__main__ import COMMANDS

ROOT = pages.ROOT
#: Where the arguments of the script that a shell script starts are among its own.
LAUNCHERS = {
    "tools/dist_train.sh": ("tools/train.py", lambda words: [words[0], *words[2:]]),
    "tools/dist_test.sh": ("tools/test.py", lambda words: [*words[:2], *words[3:]]),
    "tools/slurm_train.sh": ("tools/train.py", lambda words: words[2:]),
}
#: Options of torchrun and of Slurm's srun and sbatch.
OF_LAUNCHERS = ("--max-restarts", "--array", "--kill-on-bad-exit", "--nproc-per-node", "--requeue", "--ntasks")
#: Made by the worked example that test_contributing.py carries out.
OF_THE_EXAMPLE = ("configs/espcn_x2_div2k.py", "configs/basicsr/espcn_x2_div2k.yml")


@functools.cache
def parser(script):
    return parsers.parser_of(script)


@functools.cache
def makefile():
    """Return the targets and the variables that `make` alone tells of."""
    text = (ROOT / "Makefile").read_text()
    (line,) = re.findall(r'"Variables: (.*)"', text)
    return set(re.findall(r"(?m)^([a-z-]+):.*##", text)), set(re.findall(r"[A-Z]{2,}", line))


def commands(text):
    """Split shell code into commands of words."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for separator, part in itertools.groupby(words, key=("&&", "|").__contains__):
            if not separator:
                yield list(part)


def inline_commands(page):
    """Return the commands within the lines of a page."""
    for span in pages.spans(page):
        if re.match(r"([A-Z_]+=\S+ )*(make|python|pip|source|pytest|tools/\S+|data_prep/\S+) ", span):
            yield from commands(span)


def check(page, words):
    """Raise unless a command could be run."""
    variables = {}
    while match := re.fullmatch(r"([A-Z_\d]+)=(.*)", words[0]):
        variables[match[1]] = match[2]
        words = words[1:]
    program, *arguments = words
    program = re.sub(r"^\.venv/bin/", "", program)
    if program == "make":
        targets, settings = makefile()
        for word in arguments:
            name, equals, _ = word.partition("=")
            assert name in (settings if equals else targets), f"make has no {name}"
    elif program == "python":
        run_script(page, arguments[0], arguments[1:], variables)
    elif re.fullmatch(r"(tools|data_prep)/\w+\.py", program):  # a mention, perhaps without what is required
        assert {word for word in arguments if word.startswith("--")} <= parser(program)._option_string_actions.keys()
    elif program in LAUNCHERS:
        script, rest = LAUNCHERS[program]
        readers = (ROOT / program).read_text() + (ROOT / "tools" / "dist_run.sh").read_text()
        run_script(page, script, rest(arguments), variables, readers)
    elif program == "pip":
        install(arguments)
    elif program in ("torchrun", "srun"):
        script = next(index for index, word in enumerate(arguments) if word.endswith(".py"))
        for word in arguments[:script]:
            assert word in ("python", "--standalone") or word.partition("=")[0] in OF_LAUNCHERS
        run_script(page, arguments[script], arguments[script + 1 :], variables)
    elif program == "sbatch":
        assert arguments[-2] == "--wrap"
        (wrapped,) = commands(arguments[-1].replace("$SLURM_ARRAY_TASK_ID", "1"))
        check(page, wrapped)
    elif program == "panet":
        run_script(page, f"tools/{COMMANDS[arguments[0]][0]}.py", arguments[1:], variables)
    elif program == "source":
        assert arguments == [".venv/bin/activate"]
    elif program == "pytest":
        assert (ROOT / arguments[0]).exists()
    elif program == "find":
        pass
    elif program in ("git", "cd", "pre-commit"):
        assert page == "CONTRIBUTING.md"
    else:
        pytest.fail(f"{page}: an unknown command: {words}")


def run_script(page, script, arguments, variables, reader=""):
    """Let a script's own parser read its arguments; look into the config that they name."""
    if script == "SCRIPT":  # any of them
        return
    reader += (ROOT / script).read_text() + "".join(path.read_text() for path in (ROOT / "configs").glob("**/*.*"))
    for name in variables:
        assert re.search(rf"\b{name}\b", reader), f"nothing reads {name}"
    try:
        args = parser(script).parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{page}: {script} does not take {arguments}")
    if script not in ("tools/train.py", "tools/test.py") or str(args.config) in OF_THE_EXAMPLE:
        return
    if (overrides := args.cfg_options or {}) or getattr(args, "checkpoint", None):
        config = Config.fromfile(ROOT / args.config, import_custom_modules=False)
        for key in overrides:
            value = config
            for part in key.split("."):
                assert part in value, f"{args.config} has no {key}"
                value = value[part]
        if found := re.fullmatch(r"work_dirs/(\w+)/iter_(\d+)\.pth", str(getattr(args, "checkpoint", ""))):
            assert (found[1], int(found[2])) == (args.config.stem, config.train_cfg.max_iters)
    assert (ROOT / args.config).is_file()


def install(arguments):
    """Check the packages of ``pip install``."""
    assert arguments[0] == "install"
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    pins = "".join((ROOT / "requirements" / f"{name}.txt").read_text() for name in ("constraints", "frameworks"))
    words = iter(arguments[1:])
    for word in words:
        if word == "-c":
            assert next(words) == "requirements/constraints.txt"
        elif ours := re.fullmatch(r"panet-plugin(?:\[([\w,]+)\])?", word):
            assert set(ours[1].split(",") if ours[1] else ()) <= set(settings["options.extras_require"])
        elif word not in ("pre-commit", "--no-deps", "."):
            assert re.search(rf"(?m)^{re.escape(word.partition('==')[0])}==", pins), f"{word} has no pin"
            assert "==" not in word or re.search(rf"(?m)^{re.escape(word)}$", pins), f"{word} is pinned otherwise"


@pytest.mark.parametrize("page", pages.PAGES)
def test_blocks_of_commands(page):
    for block in pages.blocks(page):
        if block.language == "sh":
            for words in commands(block.text):
                check(page, words)


@pytest.mark.parametrize("page", pages.PAGES)
def test_commands_within_lines(page):
    for words in inline_commands(page):
        check(page, words)


def test_options_within_lines_exist():
    scripts = [name for name in parsers.scripts() if name.endswith(".py")]
    known = {option for name in scripts for option in parser(name)._option_string_actions}
    known |= {"--no-deps", *OF_LAUNCHERS}
    for page in pages.PAGES:
        for span in pages.spans(page):
            for option in re.findall(r"(?:^|\s)(--[a-z][a-z-]*)", span):
                assert option in known, f"{page}: no script has {option}"


@pytest.mark.parametrize(
    "command",
    [
        "make docks",
        "make docs FOLDER=x",
        "python tools/train.py configs/panet_x2_div2k.py --resum_e",
        "python tools/train.py configs/panet_x2.py",
        "python tools/train.py configs/panet_x2_div2k.py --cfg-options train_cfg.iterations=4",
        "python tools/test.py configs/panet_lite_x2_sample.py work_dirs/panet_lite_x2_sample/iter_900.pth",
        "python tools/compare.py --task artifact_reduction --quality ten --data DIR --methods degraded",
        "tools/dist_train.sh configs/panet_x2_div2k.py 8 --out x",
        "RANKS=2 tools/dist_train.sh configs/panet_x2_div2k.py 8",
        "torchrun --nproc-per-node=8 tools/restore.py photos --launcher pytorch",
        "pip install left-pad",
        "frobnicate",
    ],
)
def test_a_wrong_command_is_found(command):
    (words,) = commands(command)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check("README.md", words)
