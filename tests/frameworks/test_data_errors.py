"""Data that cannot be read ends a training with the LMDB, the key and what was expected, and no traceback."""

import shutil

import lmdb
import pytest
import small_runs

WORKERS = {"mmagic": "train_dataloader.num_workers", "basicsr": "datasets.train.num_worker_per_gpu"}


@pytest.mark.parametrize("framework", WORKERS)
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_records_are_named(framework, workers, run_tool, div2k, tmp_path):
    data = shutil.copytree(div2k, tmp_path / "data")
    path = data / "DIV2K_train_LR_bicubic_X2_sub.lmdb"
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as transaction:
        for key in list(transaction.cursor().iternext(values=False)):
            transaction.put(key, transaction.get(key)[:200])
    options = [*small_runs.options(framework), f"{WORKERS[framework]}={workers}"]
    arguments = [small_runs.config(framework), "--work-dir", tmp_path / "out", *options]
    output = run_tool("train.py", *arguments, code=1, DIV2K_ROOT=str(data))
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "X2_sub.lmdb: " in line
    assert "Traceback" not in output
