"""Checkpoint files: extracting a network's weights from the formats of all frameworks, without executing anything."""

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

#: Keys of state dicts in checkpoints of the frameworks and the original, averaged weights first.
CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")

#: Key under which :func:`write_checkpoint` stores the network's arguments as JSON.
ARGUMENTS = "panet_plugin"

#: Key under which it stores the network's task, as JSON of ``Task.describe()``.
TASK = "panet_plugin_task"

#: Key of the size in pixels of the training patches.
PATCH = "panet_plugin_patch"

#: Name of a tensor in safetensors files with the bytes of a JSON object with the values of these keys, for programs
#: that pass on only tensors.
ABOUT = "panet_plugin_about"

#: Size of the original networks' training patches (paper, section 4.1), which their files do not record.
PUBLISHED_PATCH = PUBLISHED_TRAINING["patch_size"]

#: Prefixes that wrappers add to every name, innermost last; averaged weights are preferred.
PREFIXES = ("module.", "_orig_mod.", "generator_ema.", "generator.")

#: Prefixes of MMagic's entries beside the generator's.
FOREIGN_PREFIXES = ("data_preprocessor.", "step_counter", "steps", "discriminator.", "perceptual_loss.", "generator.")

#: Classes that MMEngine's checkpoints pickle beside tensors, for the log. They are not needed.
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


#: Allowed ratio of the total size of a checkpoint's tensors to that of its storage.
LARGEST_RATIO, LEAST_BYTES = 4, 1 << 20

#: Protects PyTorch's list of allowed classes, which all threads share.
_allow_list = threading.Lock()


class _Inert:
    """Replaces an unneeded object of a checkpoint: accepts any arguments, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextlib.contextmanager
def _only_inert(names: Iterable[str]) -> Iterator[None]:
    """Make ``torch.load`` replace these classes by inert objects, and ignore classes that the program has allowed."""
    with _allow_list:
        allowed = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        # Classes with these names: PyTorch before 2.6 does not accept pairs of a class and a name.
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
    """Read the plain state dict of a network, in float32 on the CPU.

    Args:
        source: A ``.safetensors`` or ``torch.save`` file of this project, BasicSR, MMagic or the original, or the
            contents of such a file. ``{"params": ...}``, ``{"state_dict": ...}`` and the like are unwrapped; prefixes
            such as ``module.`` and ``generator.`` are removed; averaged (EMA) weights are preferred.

    Returns:
        The tensors by this project's names.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the source is not a checkpoint.
    """
    return read_checkpoint(source)[0]


class Checkpoint(NamedTuple):
    """The contents of a network's checkpoint.

    Attributes:
        state: The tensors by this project's names, float32, on the CPU.
        arguments: Arguments of the network if :func:`write_checkpoint` stored them; empty for the original's
            checkpoints, whose networks are all as published; None if unknown.
        patch: Size of the training patches in pixels; None if unknown.
    """

    state: dict[str, Tensor]
    arguments: Mapping[str, Any] | None
    patch: int | None


def read_checkpoint(source: str | os.PathLike | Mapping[str, Any], rgb_range: float | None = None) -> Checkpoint:
    """Read a state dict as :func:`read_state_dict`, and what is known about the network.

    ``rgb_range`` is for :func:`~panet_plugin.weights.names.from_original`.
    """
    if isinstance(source, Mapping):
        return _interpret(source, source, "the given mapping", rgb_range)
    path = Path(source)
    found, about = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    return _interpret(found, about, str(path), rgb_range)


def read_task(path: str | os.PathLike) -> Task | None:
    """Return the task stored by :func:`write_checkpoint`; None if there is none.

    Args:
        path: Any checkpoint; the weights themselves are not read.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or the task is invalid.
    """
    path, about = Path(path), _read_about(path)
    if (description := _json_object(about.get(TASK), TASK, str(path))) is None:
        return None
    try:
        return make_task(**description)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {TASK!r} is not a task: {error}") from error


def read_patch(path: str | os.PathLike) -> int | None:
    """Return the size of a network's training patches in pixels; None if its checkpoint does not record it.

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
    # The metadata of safetensors are strings.
    if not re.fullmatch(r"[1-9]\d{0,5}", str(patch)):
        raise CheckpointError(f"{name}: expected {PATCH!r} to be a number of pixels, found {shorten(repr(patch))}")
    return int(patch)


def _read_safetensors(path: Path, weights: bool = True) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors, if ``weights`` is set, and the metadata."""
    _must_exist(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            names = list(file.keys()) if weights else []
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error


def _read_pth(path: Path, mmap: bool = False) -> tuple[Any, Mapping[str, Any]]:
    """Return the contents of a ``torch.save`` file, and the same as a mapping, which is empty if they are not one."""
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
            raise CheckpointError(f"rgb_range is {rgb_range:g}, but only the original has other ranges than [0, 1]")
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
    """Return the text of the config in an MMEngine checkpoint; None if there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint.
    """
    path = Path(path)
    _must_exist(path)
    if path.suffix == ".safetensors":
        return None
    _, found = _read_pth(path, mmap=True)  # the weights are not read
    meta = found.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    return text if isinstance(text, str) else None


def _load(path: Path, mmap: bool = False) -> Any:
    with _only_inert(_MMENGINE_LOG):
        return load_safely(path, map_location="cpu", mmap=mmap)


def load_safely(path: str | os.PathLike, mmap: bool = False, **options: Any) -> Any:
    """Load a ``torch.save`` file of tensors, plain values and classes that the program has allowed.

    Args:
        path: The file.
        mmap: Map the tensors instead of reading them, if the file's format allows it.
        **options: For ``torch.load``, whose default of ``weights_only`` depends on the version of PyTorch.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or contains anything else.
    """
    path = Path(path)
    _must_exist(path)
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\3\4"  # as in PyTorch
    if zipped:
        _must_be_plain(path)
    try:
        return torch.load(path, **{**options, "mmap": mmap and zipped, "weights_only": True})
    except pickle.UnpicklingError as error:
        _must_not_be_a_page(path, error)
        raise CheckpointError(refusal(path, error)) from error
    except Exception as error:
        # Damaged or foreign files fail anywhere inside the unpickler, with unhelpful messages.
        _must_not_be_a_page(path, error)
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise CheckpointError(f"{path}: not a checkpoint file, or damaged ({reason})") from error


def refusal(name: str | os.PathLike, error: pickle.UnpicklingError) -> str:
    """Return PyTorch's reason for refusing a file, without its advice on loading the file anyway."""
    found = re.search(r"(?:WeightsUnpickler error:\s*|(?=Trying to load unsupported ))(.*)", str(error))
    return f"{name}: refused, since it is not a plain checkpoint of tensors ({found[1] if found else error})"


def _must_be_plain(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception as error:
        raise CheckpointError(f"{path}: not a checkpoint file, or damaged ({error})") from error
    if any(re.fullmatch(r"[^/]+/constants\.pkl", record.filename) for record in records):
        raise CheckpointError(f"{path}: a TorchScript program, expected a checkpoint of tensors")
    # PyTorch never compresses records; a small compressed file could expand to any size.
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise CheckpointError(f"{path}: its records are compressed, unlike those of torch.save")


def _must_not_be_a_page(path: Path, error: Exception) -> None:
    with path.open("rb") as file:
        if re.match(rb"\s*<(!doctype|html|\?xml)", file.read(512), re.IGNORECASE):
            raise CheckpointError(f"{path}: a web page, not a checkpoint file; download the file itself") from error


def _container(found: Mapping[Any, Any], name: str) -> Any:
    """Return the key of the state dict; None if there is none.

    Raises:
        CheckpointError: If it is ambiguous, for example because of averaged weights under an unknown name.
    """
    # Some programs write params-ema.
    plain = {key: key.lower().replace("-", "_") for key in found if isinstance(key, str)}
    key = next((key for wanted in CONTAINERS for key, text in plain.items() if text == wanted), None)
    # MMEngine stores the weights that are not averaged under this name.
    averaged = [k for k, text in plain.items() if "ema" in text.split("_") and text != "ema_state_dict"]
    others = [k for k in averaged if k != key and _holds_tensors(found[k])]
    if key is not None and plain[key] != CONTAINERS[0] and others:
        raise CheckpointError(f"{name}: {', '.join(map(repr, others))} beside {key!r}: keep only one of them")
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
    """Raise CheckpointError unless these are plain tensors with a total size of about that of the storage."""
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{name}: expected names of tensors, found {shorten(repr(key))}")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise CheckpointError(f"{name}: {key!r} is not a plain tensor of real numbers")
    stored = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    # Tensors may share storage, and views may repeat it many times.
    if sum(value.nbytes for value in tensors.values()) > LARGEST_RATIO * sum(stored.values()) + LEAST_BYTES:
        raise CheckpointError(f"{name}: its tensors are more than {LARGEST_RATIO} times as large as its storage")


def write_checkpoint(network: nn.Module, path: str | os.PathLike, task: Task | None = None) -> None:
    """Write a network's weights and arguments atomically, in a format that both frameworks read.

    Args:
        network: A network of this project; ``trained_patch`` is the size of its training patches, if known.
        path: ``.safetensors`` for plain names; ``.pth`` for one copy of the tensors under the names that BasicSR
            (``params``) and MMagic (``state_dict``, prefix ``generator.``) expect.
        task: The network's task, if known; see :func:`read_task`.

    Raises:
        ValueError: If the path has another suffix.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"{path}: expected a name that ends in .safetensors or .pth")
    # Cloned, since safetensors does not allow shared storage and PANet's blocks share their PReLU.
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
