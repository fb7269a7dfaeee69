"""One process of distributed training: are its averaged gradients those of one process on the global batch?

Started in the environment that torchrun sets: gradients.py FRAMEWORK WORK_DIR
"""

import sys
from pathlib import Path

import small_runs
import torch
import torch.distributed as dist

from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.frameworks.distributed import init_gloo

framework, work_dir = sys.argv[1], Path(sys.argv[2])
config = Path(small_runs.config(framework))
run = framework_of(config)
if framework == "mmagic":
    cfg = run._load(config, work_dir, small_runs.changes(framework))
    wrapped = run._runner(cfg, "pytorch").model
    plain = wrapped.module.generator
    forward = lambda lr: wrapped(lr, mode="tensor")  # noqa: E731
else:
    from basicsr.models import build_model

    init_gloo("pytorch")
    options = run.load_options(config, small_runs.changes(framework))
    options.update(is_train=True, dist=True, rank=dist.get_rank(), num_gpu=0)
    forward = build_model(options).net_g
    plain = forward.module
    wrapped = forward
assert isinstance(wrapped, torch.nn.parallel.DistributedDataParallel)

torch.manual_seed(1)
lr, hr = torch.rand(4, 3, 12, 12), torch.rand(4, 3, 24, 24)
mine = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
(forward(lr[mine]) - hr[mine]).abs().mean().backward()
trained = {name: parameter for name, parameter in plain.named_parameters() if parameter.requires_grad}
averaged = {name: parameter.grad.clone() for name, parameter in trained.items()}
plain.zero_grad()
(plain(lr) - hr).abs().mean().backward()
for name, parameter in trained.items():
    torch.testing.assert_close(averaged[name], parameter.grad, rtol=1e-4, atol=1e-7)
own = {name: value for name, value in averaged.items() if value.abs().max() > 0}
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {len(own)} gradients agree", flush=True)
dist.destroy_process_group()
