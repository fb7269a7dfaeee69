"""Checkpoint files: whatever a framework wrapped around a network's weights is taken off, nothing is executed."""

import contextlib
import io
import json
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from panet_plugin.errors import CheckpointError, shorten
from panet_plugin.files import write_bytes
from panet_plugin.tasks import PUBLISHED_TRAINING, Task, make_task
from panet_plugin.weights.names import from_original, table_of

#: Keys under which the frameworks and the original keep a state dict, the averaged weights first.
CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")

#: Key under which :func:`write_checkpoint` keeps the network's arguments, as JSON.
ARGUMENTS = "panet_plugin"

#: Key under which it keeps the task that the network was trained for, as JSON of ``Task.describe()``.
TASK = "panet_plugin_task"

#: Key under which checkpoints keep the side in pixels of the patches that the network was trained on.
PATCH = "panet_plugin_patch"

#: Name of a tensor of a safetensors file: the bytes of a JSON object with the values of these keys, for programs that
#: pass on tensors alone.
ABOUT = "panet_plugin_about"

#: That of the original networks (paper, section 4.1), whose files do not say it.
PUBLISHED_PATCH = PUBLISHED_TRAINING["patch_size"]

#: Prefixes that wrappers put before every name, innermost last; averaged weights are preferred.
PREFIXES = ("module.", "_orig_mod.", "generator_ema.", "generator.")

#: Entries that MMagic keeps beside the generator's.
FOREIGN_PREFIXES = ("data_preprocessor.", "step_counter", "steps", "discriminator.", "perceptual_loss.", "generator.")

#: What an MMEngine checkpoint pickles beside tensors: its log. We need none of it.
_MMENGINE_LOG = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int64DType",
    "_codecs.encode",
    "builtins.getattr",
)


#: How many times larger than what is stored the tensors of a checkpoint may be together, but for a few bytes.
LARGEST_RATIO, LEAST_BYTES = 4, 1 << 20

#: PyTorch's list is one for all threads.
_allow_list = threading.Lock()


class _Inert:
    """Stands for an object of a checkpoint that we do not need: takes anything, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextlib.contextmanager
def _only_inert(names: Iterable[str]) -> Iterator[None]:
    """Let ``torch.load`` take inert objects for these classes, and nothing that a program has allowed elsewhere."""
    with _allow_list:
        allowed = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        # Classes of these names: PyTorch before 2.6 takes no pair of a class and a name.
        parts = (name.rpartition(".") for name in names)
        torch.serialization.add_safe_globals(
            [type(name, (_Inert,), {"__module__": module}) for module, _, name in parts]
        )
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed)


def read_state_dict(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the plain state dict of a network, in float32, on the CPU.

    Args:
        source: A ``.safetensors`` or ``torch.save`` file of this project, BasicSR, MMagic or the original, or what
            such a file holds. ``{"params": ...}``, ``{"state_dict": ...}`` and the like are opened, prefixes such as
            ``module.`` and ``generator.`` removed; averaged (EMA) weights are preferred.

    Returns:
        The tensors by our names, whatever names the source has.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the source is not a checkpoint.
    """
    return read_checkpoint(source)[0]


class Checkpoint(NamedTuple):
    """What a checkpoint holds of a network.

    Attributes:
        state: The tensors by our names, float32, on the CPU.
        arguments: Of the network, if :func:`write_checkpoint` wrote them; empty for the original's, which are all as
            published; None if they are not known.
        patch: Side in pixels of the patches that it was trained on; None if that is not known.
    """

    state: dict[str, Tensor]
    arguments: Mapping[str, Any] | None
    patch: int | None


def read_checkpoint(source: str | os.PathLike | Mapping[str, Any], rgb_range: float | None = None) -> Checkpoint:
    """Read a state dict as :func:`read_state_dict`, and what is known of the network besides.

    ``rgb_range`` is for :func:`~panet_plugin.weights.names.from_original`.
    """
    if isinstance(source, Mapping):
        return _interpret(source, source, "the given mapping", rgb_range)
    path = Path(source)
    found, about = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    return _interpret(found, about, str(path), rgb_range)


def read_task(path: str | os.PathLike) -> Task | None:
    """Return the task that a file of :func:`write_checkpoint` says its network was trained for; None if it does not.

    Args:
        path: Any checkpoint; the weights themselves are not read.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or what it says is no task.
    """
    path, about = Path(path), _read_about(path)
    if (description := _json_object(about.get(TASK), TASK, str(path))) is None:
        return None
    try:
        return make_task(**description)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {TASK!r} describes no task: {error}") from error


def read_patch(path: str | os.PathLike) -> int | None:
    """Return the side in pixels of the patches that a network was trained on; None if its checkpoint does not say it.

    Errors as :func:`read_task`.
    """
    return _patch(_read_about(path), str(path))


def _read_about(path: str | os.PathLike) -> Mapping[str, Any]:
    path = Path(path)
    return (_read_safetensors(path, False) if path.suffix == ".safetensors" else _read_pth(path, mmap=True))[1]


def _patch(about: Mapping[str, Any], name: str) -> int | None:
    patch = about.get(PATCH)
    if patch is None:
        return None
    # The metadata of safetensors are words.
    if not re.fullmatch(r"[1-9]\d{0,5}", str(patch)):
        raise CheckpointError(f"{name}: expected {PATCH!r} to be a side in pixels, found {shorten(repr(patch))}")
    return int(patch)


def _read_safetensors(path: Path, weights: bool = True) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return tensors, unless ``weights`` are not wanted, and what is said about them."""
    _must_exist(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = list(file.keys()) if weights else []
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error


def _read_pth(path: Path, mmap: bool = False) -> tuple[Any, Mapping[str, Any]]:
    """Return what a file of ``torch.save`` holds, and the same as a mapping, empty if it is none."""
    _must_exist(path)
    found = _load(path, mmap)
    return found, found if isinstance(found, Mapping) else {}


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")


def _interpret(found: Any, about: Mapping[str, Any], name: str, rgb_range: float | None) -> Checkpoint:
    state = _unwrap(found, name)
    if (said := state.pop(ABOUT, None)) is not None:
        about = {**(_json_object(said.byte().numpy().tobytes(), ABOUT, name) or {}), **about}
    table = table_of(state)
    try:
        if table is not None:
            return Checkpoint(from_original(state, table, rgb_range), {}, PUBLISHED_PATCH)
        if rgb_range not in (None, 1):
            raise CheckpointError(f"not the original's: our networks are for images in [0, 1], not [0, {rgb_range:g}]")
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    return Checkpoint(state, _json_object(about.get(ARGUMENTS), ARGUMENTS, name), _patch(about, name))


def _json_object(text: Any, key: str, name: str) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: {key!r} is not JSON ({error})") from error
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{name}: expected {key!r} to be an object, found {value!r}")
    return value


def read_mmengine_config(path: str | os.PathLike) -> str | None:
    """Return the text of the config that MMEngine keeps in its checkpoints; None if there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint.
    """
    path = Path(path)
    _must_exist(path)
    if path.suffix == ".safetensors":
        return None
    _, found = _read_pth(path, mmap=True)  # the weights themselves need not be read
    meta = found.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    return text if isinstance(text, str) else None


def _load(path: Path, mmap: bool = False) -> Any:
    with _only_inert(_MMENGINE_LOG):
        return load_safely(path, map_location="cpu", mmap=mmap)


def load_safely(path: str | os.PathLike, mmap: bool = False, **options: Any) -> Any:
    """Return what a file of ``torch.save`` holds, if that is tensors, plain values and what the program has allowed.

    Args:
        path: The file.
        mmap: Map the tensors instead of reading them, where the file's format allows it.
        **options: For ``torch.load``, whose own ``weights_only`` depends on the version of PyTorch.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or holds anything else.
    """
    path = Path(path)
    _must_exist(path)
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\3\4"  # as PyTorch tells
    if zipped:
        _must_be_plain(path)
    try:
        return torch.load(path, **{**options, "mmap": mmap and zipped, "weights_only": True})
    except pickle.UnpicklingError as error:
        _must_not_be_a_page(path, error)
        raise CheckpointError(refusal(path, error)) from error
    except Exception as error:
        # A damaged or foreign file fails anywhere inside the unpickler, and says what helps nobody.
        _must_not_be_a_page(path, error)
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise CheckpointError(f"{path}: not a checkpoint file, or damaged ({reason})") from error


def refusal(name: str | os.PathLike, error: pickle.UnpicklingError) -> str:
    """Return what PyTorch has refused, without its advice on how to load it all the same."""
    found = re.search(r"(?:WeightsUnpickler error:\s*|(?=Trying to load unsupported ))(.*)", str(error))
    return f"{name}: refused, since it is no plain checkpoint of tensors ({found[1] if found else error})"


def _must_be_plain(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint file, or damaged ({error})") from error
    if any(re.fullmatch(r"[^/]+/constants\.pkl", record.filename) for record in records):
        raise CheckpointError(f"{path}: a TorchScript program, expected a checkpoint of tensors")
    # PyTorch never compresses, and a small file would become as large as it says.
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(f"{path}: its records are compressed, which those of torch.save are not")


def _must_not_be_a_page(path: Path, error: Exception) -> None:
    with path.open("rb") as file:
        if re.match(rb"\s*<(!doctype|html|\?xml)", file.read(512), re.IGNORECASE):
            raise CheckpointError(f"{path}: a web page, not a checkpoint file; download the file itself") from error


def _container(found: Mapping[Any, Any], name: str) -> Any:
    """Return the key under which a state dict is kept; None where there is none.

    Raises:
        CheckpointError: If there are others that may be meant, such as averaged weights of an unknown name.
    """
    # Programs write params-ema, too.
    plain = {key: key.lower().replace("-", "_") for key in found if isinstance(key, str)}
    key = next((key for wanted in CONTAINERS for key, text in plain.items() if text == wanted), None)
    # MMEngine keeps the weights that are not averaged under this name.
    averaged = [k for k, text in plain.items() if "ema" in text.split("_") and text != "ema_state_dict"]
    others = [k for k in averaged if k != key and _holds_tensors(found[k])]
    if key is not None and plain[key] != CONTAINERS[0] and others:
        raise CheckpointError(f"{name}: {', '.join(map(repr, others))} beside {key!r}: keep the weights that are meant")
    return key


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, Tensor) for item in value.values())


def _unwrap(found: Any, name: str) -> dict[str, Tensor]:
    while isinstance(found, Mapping) and (inside := _container(found, name)) is not None:
        found = found[inside]
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{name}: expected a state dict, found {type(found).__name__}")
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(found):
        others = ", ".join(f"{key!r} ({type(value).__name__})" for key, value in found.items() if key not in tensors)
        raise CheckpointError(f"{name}: expected a state dict of tensors, found {shorten(others) or 'an empty one'}")
    _must_be_dense(tensors, name)
    for prefix in PREFIXES:
        if inner := {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}:
            strangers = [key for key in tensors if not key.startswith((prefix, *FOREIGN_PREFIXES))]
            if strangers:
                raise CheckpointError(
                    f"{name}: some names begin with {prefix!r} and others do not: {shorten(strangers)}"
                )
            tensors = inner
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def _must_be_dense(tensors: Mapping[Any, Tensor], name: str) -> None:
    """Raise CheckpointError unless these are plain tensors of about the size of what was stored."""
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{name}: expected names of tensors, found {shorten(repr(key))}")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise CheckpointError(f"{name}: {key!r} is no plain tensor of real numbers")
    stored = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    # Tensors may share what is stored, and one may be stored once and shown many times.
    if sum(value.nbytes for value in tensors.values()) > LARGEST_RATIO * sum(stored.values()) + LEAST_BYTES:
        raise CheckpointError(f"{name}: its tensors are more than {LARGEST_RATIO} times as large as what it stores")


def write_checkpoint(network: nn.Module, path: str | os.PathLike, task: Task | None = None) -> None:
    """Write a network's weights and arguments, so that both frameworks read them; nothing half-written stays.

    Args:
        network: One of our networks; ``trained_patch`` is the side of the patches that it was trained on, if known.
        path: ``.safetensors`` holds the plain names. ``.pth`` holds one copy of the tensors under the names that
            BasicSR (``params``) and MMagic (``state_dict``, prefix ``generator.``) look for.
        task: What the network was trained for, if known; see :func:`read_task`.

    Raises:
        ValueError: If the path ends in neither.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"{path}: a checkpoint is written as .safetensors or .pth")
    # Cloned, since safetensors refuses shared storage and PANet's blocks share their PReLU.
    state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    about = {ARGUMENTS: json.dumps(network.arguments)} if network.arguments else {}
    if task is not None:
        about[TASK] = json.dumps(task.describe())
    if (patch := getattr(network, "trained_patch", None)) is not None:
        about[PATCH] = str(patch)
    if path.suffix == ".safetensors":
        if about:
            state[ABOUT] = torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8)
        content = safetensors.torch.save(state, metadata={"format": "pt", **about})
    else:
        buffer = io.BytesIO()
        generator = {f"generator.{key}": value for key, value in state.items()}
        torch.save({"params": state, "state_dict": generator, **about}, buffer)
        content = buffer.getvalue()
    write_bytes(path, content)
