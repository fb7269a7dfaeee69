"""Convert a checkpoint of the original PANet, PA-EDSR or RNAN, or of either framework, to a file that both load."""

import argparse
from pathlib import Path

from panet_plugin.checkpoints import load_any, load_task
from panet_plugin.command_line import add_task_options, parse_task, report_errors
from panet_plugin.tasks import SuperResolution
from panet_plugin.weights import CheckpointError, load_official, write_checkpoint


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint to read")
    parser.add_argument("target", type=Path, help=".pth or .safetensors to write")
    parser.add_argument(
        "--config", type=Path, help="training config (.py or .yml) of a checkpoint that does not identify its network"
    )
    parser.add_argument(
        "--rgb-range",
        type=float,
        help="largest color value in the original's training, if it cannot be detected from mean shifts or size",
    )
    add_task_options(parser, required=False)
    args = parser.parse_args()
    if args.target.suffix not in (".pth", ".safetensors"):
        parser.error(f"{args.target}: the target must end in .pth or .safetensors")
    if args.rgb_range is not None and not args.rgb_range > 0:
        parser.error(f"--rgb-range must be positive, got {args.rgb_range:g}")
    if args.rgb_range is not None and args.config is not None:
        parser.error("--rgb-range applies to original checkpoints, --config to those of the frameworks")
    asked = parse_task(parser, args)
    with report_errors():
        if args.rgb_range is None:
            network = load_any(args.source, args.config)
        else:
            network = load_official(args.source, args.rgb_range)
        arguments = getattr(network, "arguments", None)
        if arguments is None:
            raise CheckpointError(f"{args.source}: {type(network).__name__} is none of PANet, PAEDSR and RNAN")
        task = asked or load_task(args.source, args.config)
        if task is None and arguments.get("scale", 1) > 1:
            task = SuperResolution(arguments["scale"])
        if task is not None and task.scale != arguments.get("scale", 1):
            scale = arguments.get("scale", 1)
            raise CheckpointError(f"{args.source}: a network of scale {scale} is not for {task.label}")
        write_checkpoint(network, args.target, task)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    words = task.label if task else "unknown task (set --task)"
    print(f"{args.target}: {type(network).__name__}, {parameters / 1e6:.3f} M parameters, {words}")
