"""Describes a teacher from its configuration and file headers, without building the model.

Memory holds nothing larger than hash buffers, and a file is read once. So a finished job can check its teacher and stop
within seconds, and the planner can describe a teacher that does not fit its machine.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import TeacherError, VocabularyError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.metadata import TeacherInfo, TokenizerInfo
from logitcask.teacher.model.gguf_header import GgufHeader, read_gguf_header
from logitcask.teacher.model.gguf_settings import check_gguf
from logitcask.teacher.model.references import Resolved, resolve
from logitcask.teacher.model.weight_digests import fingerprint_of_tensors, weight_digests
from logitcask.teacher.model.weight_files import check_weights, weight_files

# Keys that change with the library that wrote the file, not with the model.
_VOLATILE_KEYS = ("transformers_version", "_name_or_path", "use_cache")
# What `transformers` assumes if a GGUF file states no soft-cap.
_GGUF_SOFTCAPS = {"gemma2": 30.0}


def describe_teacher(reference: str | Path, dtype: str) -> TeacherInfo:
    """Name, fingerprint, size and output of a teacher.

    Args:
        reference: A directory, a `.gguf` file, or a hub id.
        dtype: The resolved dtype of the forward pass; copied into the description.

    Raises:
        TeacherError: There is no such teacher, or it lacks a readable config.json or safetensors weights.
    """
    resolved = resolve(reference)
    if resolved.kind == "gguf":
        return _describe_gguf(resolved, dtype)
    return _describe_directory(resolved, dtype)


def check_vocabulary(tokenizer: TokenizerInfo, teacher: TeacherInfo) -> None:
    """Checks that the teacher knows all ids of the tokenizer.

    A model may have more rows than the tokenizer has ids: vocabularies are padded to round numbers.

    Raises:
        VocabularyError: The tokenizer has more ids; names both.
    """
    if tokenizer.vocab_size > teacher.vocab_size:
        raise VocabularyError(
            f"tokenizer {tokenizer.name!r} has ids up to {tokenizer.vocab_size - 1}, but teacher {teacher.name!r} "
            f"has only {teacher.vocab_size} (0 to {teacher.vocab_size - 1}); use the tokenizer the teacher was "
            "trained with"
        )


def read_config(resolved: Resolved) -> dict[str, Any]:
    """The config.json of a directory, unchanged.

    Raises:
        TeacherError: It is missing or not a JSON object, or the directory holds an adapter.
    """
    path = resolved.path / "config.json"
    if (resolved.path / "adapter_config.json").exists():
        # transformers applies it if peft is installed, and ignores it otherwise.
        raise TeacherError(
            f"teacher directory {resolved.path} holds a PEFT adapter (adapter_config.json), which is not applied. To "
            "merge it: peft.AutoPeftModelForCausalLM.from_pretrained(DIRECTORY).merge_and_unload()"
            ".save_pretrained(MERGED), copy the tokenizer's files there, and use MERGED. To use the weights without "
            "it: remove its files"
        )
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError as e:
        raise TeacherError(
            f"teacher directory {resolved.path} has no config.json; give a directory that was written by "
            "save_pretrained of transformers"
        ) from e
    except ValueError as e:
        raise TeacherError(f"{path} is not JSON: {e}") from e
    if not isinstance(config, dict):
        raise TeacherError(f"{path} contains a JSON {type(config).__name__}, not an object")
    return config


def text_config(resolved: Resolved) -> Any:
    """The language model's part of the configuration of a directory, completed with the defaults of its class.

    Raises:
        TeacherError: `transformers` cannot read the configuration, or it is not that of a language model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as e:
        raise TeacherError(
            f"transformers cannot read the configuration of teacher {resolved.name!r}: {e}. Models that need their "
            "own code are not supported."
        ) from e
    language_model = config.get_text_config()
    if not hasattr(language_model, "vocab_size"):
        raise TeacherError(f"teacher {resolved.name!r} ({config.model_type}) is not a language model: no vocab_size")
    return language_model


def _describe_directory(resolved: Resolved, dtype: str) -> TeacherInfo:
    config = read_config(resolved)
    headers, files = check_weights(resolved.path, config), weight_files(resolved.path)
    digests = weight_digests(files)
    names = [file.name for file in files]
    stable_config = {key: value for key, value in config.items() if key not in _VOLATILE_KEYS}
    language_model = text_config(resolved)
    return TeacherInfo(
        name=resolved.name,
        fingerprint=fingerprint(
            {
                "config": stable_config,
                "files": [[name, one.sha256] for name, one in zip(names, digests, strict=True)],
            }
        ),
        tensors=fingerprint_of_tensors(digests, stable_config),
        vocab_size=language_model.vocab_size,
        dtype=dtype,
        architecture=(config.get("architectures") or [config.get("model_type", "unknown")])[0],
        num_parameters=sum(math.prod(header.shape) for header in headers.values()),
        licence=_stated_license(resolved.path),
        final_logit_softcap=getattr(language_model, "final_logit_softcapping", None),
    )


def _describe_gguf(resolved: Resolved, dtype: str) -> TeacherInfo:
    header = read_gguf_header(resolved.path)
    check_gguf(header, resolved.path)
    return TeacherInfo(
        name=resolved.name,
        fingerprint=fingerprint({"files": [["gguf", weight_digests([resolved.path])[0].sha256]]}),
        vocab_size=_gguf_vocab_size(header, resolved.path),
        dtype=dtype,
        architecture=_class_name(header.architecture),
        num_parameters=sum(math.prod(shape) for shape in header.shapes.values()),
        licence=header.settings.get("general.license"),
        final_logit_softcap=header.setting("final_logit_softcapping") or _GGUF_SOFTCAPS.get(header.architecture),
    )


def _class_name(gguf_architecture: str) -> str:
    """The class that `transformers` loads for a GGUF architecture; the architecture's name if it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASS_NAMES

    # Families that also read images register their language model separately.
    return CLASS_NAMES.get(f"{gguf_architecture}_text") or CLASS_NAMES.get(gguf_architecture, gguf_architecture)


def _gguf_vocab_size(header: GgufHeader, path: Path) -> int:
    for name in ("output.weight", "token_embd.weight"):
        if name in header.shapes:
            return header.shapes[name][0]
    raise TeacherError(f"{path} has neither output.weight nor token_embd.weight: it is not a language model")


def _stated_license(directory: Path) -> str | None:
    """The `license:` of the model card's front matter."""
    card = directory / "README.md"
    if not card.is_file():
        return None
    front_matter = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    stated = re.search(r"^license:\s*(\S+)\s*$", front_matter[1], re.MULTILINE) if front_matter else None
    return stated[1] if stated else None
