"""Training on two hosts, each a network namespace with an address of its own: `make test-nodes`.

Not named test_*.py, so that only that target runs it: it takes some minutes, and Linux where namespaces are allowed.
"""

import contextlib
import os
import re
import signal
import subprocess
import time

import psutil
import pytest
import small_runs
import torch
from preloaded import ROOT

from panet_plugin.weights import read_state_dict

#: Of the hosts, in the order of their ranks.
ADDRESSES = ("10.77.0.1", "10.77.0.2")
#: Seconds in which the end of one host ends the other.
END = 60
FRAMEWORKS = ["mmagic", "basicsr"]

#: Whole images, unchanged: what a process draws at random depends on how many there are. A large epsilon makes Adam's
#: steps proportional to the gradients, where else the sign of a gradient that is nearly zero counts as much as any.
CHANGES = {
    "mmagic": {
        "train_dataloader.dataset.patch_size": 96,
        **{
            f"train_dataloader.dataset.pipeline.{index}.{ratio}_ratio": 0
            for index, ratio in ((0, "flip"), (1, "flip"), (2, "transpose"))
        },
        "param_scheduler.milestones": [1],
        "optim_wrapper.optimizer.eps": 0.01,
        "default_hooks.checkpoint.max_keep_ckpts": -1,
    },
    "basicsr": {
        "datasets.train.patch_size": 96,
        "datasets.train.use_hflip": False,
        "datasets.train.use_rot": False,
        "train.scheduler.milestones": [1],
        "train.optim_g.eps": 0.01,
    },
}
BATCH = {"mmagic": "train_dataloader.batch_size", "basicsr": "datasets.train.batch_size_per_gpu"}


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def hosts():
    """Return the names of two connected namespaces."""
    names = [f"panet{os.getpid()}-{number}" for number in range(2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", "net0", "netns", names[0], "type", "veth", "peer", "name", "net0", "netns", names[1])
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "net0")
                for device in ("lo", "net0"):
                    ip("-n", name, "link", "set", device, "up")
        except OSError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield names
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                ip("netns", "delete", name)


class Training:
    """A training on both hosts at once, two processes each."""

    def __init__(self, hosts, framework, div2k, work_dir, iterations, **environment):
        self.logs = [work_dir / f"host{number}.log" for number in range(2)]
        self.hosts = []
        work_dir.mkdir(exist_ok=True)
        for number, (name, log) in enumerate(zip(hosts, self.logs, strict=True)):
            script = ["bash", "tools/dist_train.sh", small_runs.config(framework), "2"]
            command = ["ip", "netns", "exec", name, *script, *arguments(framework, work_dir, iterations, 1), "--resume"]
            said = {"NNODES": "2", "NODE_RANK": str(number), "MASTER_ADDR": ADDRESSES[0], "GLOO_SOCKET_IFNAME": "net0"}
            with log.open("w") as file:
                self.hosts.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=variables(div2k) | said | environment, stdout=file, stderr=file
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for host in self.hosts:
            kill(host)

    def end(self):
        codes = [host.wait() for host in self.hosts]
        output = [log.read_text() for log in self.logs]
        assert codes == [0, 0], "\n".join(output)
        return output


def kill(host):
    """Kill all processes of a host."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(host.pid)
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
    host.wait()


def variables(div2k):
    return {**os.environ, "DIV2K_ROOT": str(div2k), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def arguments(framework, work_dir, iterations, batch):
    changes = {**small_runs.changes(framework, iterations), **CHANGES[framework], BATCH[framework]: batch}
    said = [f"{key}={str(value).replace(' ', '')}" for key, value in changes.items()]
    return ["--work-dir", str(work_dir), "--cfg-options", *said]


def checkpoints(framework, work_dir):
    """Return the checkpoints by iteration."""
    folder, pattern = {
        "mmagic": (work_dir, r"iter_(\d+)\.pth"),
        "basicsr": (work_dir / "experiments/panet_x2_div2k/models", r"net_g_(\d+)\.pth"),
    }[framework]
    found = {int(match[1]): path for path in folder.glob("*.pth") if (match := re.fullmatch(pattern, path.name))}
    if framework == "basicsr":  # to resume it takes the state, which is written afterward
        states = folder.with_name("training_states")
        found = {number: path for number, path in found.items() if (states / f"{number}.state").exists()}
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_hosts_train_as_one_process(framework, hosts, div2k, tmp_path):
    """A host dies, which ends the other; the same command on both goes on, to the weights of one process."""
    both = tmp_path / "both"
    with Training(hosts, framework, div2k, both, 10_000) as training:
        while not checkpoints(framework, both):
            assert all(host.poll() is None for host in training.hosts), training.logs[0].read_text()
            time.sleep(0.1)
        kill(training.hosts[1])
        died = time.monotonic()
        assert training.hosts[0].wait(END) != 0
        output = training.logs[0].read_text()
        print(f"{framework}: the other host ended after {time.monotonic() - died:.1f} s")
    assert re.search(r"Connection closed by peer|Connection reset by peer|recv.* failed", output), output
    last = max(checkpoints(framework, both))
    iterations = last + small_runs.CHECKPOINT
    with Training(hosts, framework, div2k, both, iterations) as training:
        first, second = training.end()
    # In the words of either framework.
    assert re.search(rf"resum.* iter: {last}\b", first.lower()), first
    assert small_runs.validations(framework, second) == 0

    one = tmp_path / "one"
    command = [os.environ.get("PYTHON", "python"), "tools/train.py", small_runs.config(framework)]
    command += arguments(framework, one, iterations, 4)
    done = subprocess.run(command, cwd=ROOT, env=variables(div2k), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    expected, found = (read_state_dict(checkpoints(framework, folder)[iterations]) for folder in (one, both))
    assert max(value.abs().max() for value in expected.values()) > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    # Each image once: another mean otherwise.
    scores = [re.findall(r"psnr: ([\d.]+)", text.lower()) for text in (first, done.stdout + done.stderr)]
    assert scores[0] and scores[0][-1] == scores[1][-1]
