"""Convert a checkpoint of the original PANet, PA-EDSR or RNAN, or of either framework, to a file that both load."""

import argparse
from pathlib import Path

from panet_plugin.checkpoints import load_any, load_task
from panet_plugin.command_line import add_task_options, parse_task, report_errors
from panet_plugin.former_options import parse_required
from panet_plugin.tasks import SuperResolution
from panet_plugin.weights import CheckpointError, load_official, write_checkpoint


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, metavar="CHECKPOINT", help="checkpoint to read; required")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".pth or .safetensors file to write; required")
    parser.add_argument(
        "--config", type=Path, help="training config (.py or .yml) of a checkpoint that does not identify its network"
    )
    parser.add_argument(
        "--rgb-range",
        type=float,
        help="largest color value in the original's training, if it cannot be detected from mean shifts or size",
    )
    add_task_options(parser, required=False)
    args = parse_required(parser, "--weights", "--out")
    if args.out.suffix not in (".pth", ".safetensors"):
        parser.error(f"{args.out}: expected a name that ends in .pth or .safetensors")
    if args.rgb_range is not None and not args.rgb_range > 0:
        parser.error(f"--rgb-range must be positive, got {args.rgb_range:g}")
    if args.rgb_range is not None and args.config is not None:
        parser.error("--rgb-range applies to original checkpoints, --config to those of the frameworks")
    asked = parse_task(parser, args)
    with report_errors():
        if args.rgb_range is None:
            network = load_any(args.weights, args.config)
        else:
            network = load_official(args.weights, args.rgb_range)
        arguments = getattr(network, "arguments", None)
        if arguments is None:
            raise CheckpointError(f"{args.weights}: {type(network).__name__} is not PANet, PAEDSR or RNAN")
        task = asked or load_task(args.weights, args.config)
        if task is None and arguments.get("scale", 1) > 1:
            task = SuperResolution(arguments["scale"])
        if task is not None and task.scale != arguments.get("scale", 1):
            scale = arguments.get("scale", 1)
            raise CheckpointError(f"{args.weights}: a network with scale {scale} does not fit {task.label}")
        write_checkpoint(network, args.out, task)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    words = task.label if task else "unknown task (set --task)"
    print(f"{args.out}: {type(network).__name__}, {parameters / 1e6:.3f} M parameters, {words}")
