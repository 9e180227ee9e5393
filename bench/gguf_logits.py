"""llama.cpp's logits of the tiny models in `tests/support/gguf_models.py`, and its ids of texts.

They are kept for tests that have no llama.cpp. `make llama-cpp` builds `llama-cpp-python` from source into an
environment of its own and runs this there:

    python bench/gguf_logits.py --out tests/fixtures/llama_cpp --rules RULE ...
"""

import argparse
import ctypes
import json
import sys
import tempfile
from pathlib import Path

import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from gguf_models import CONTEXT, IDS, VARIANTS, VOCAB_SIZE, write_model
from gguf_tokenizers import TEXTS, TOKENIZERS, write_tokenizer


def logits_of(path: Path) -> np.ndarray:
    """Logits of all positions of IDS, float32 [48, V], in float32 with a float32 cache of keys and values."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {path.name}")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = CONTEXT
    settings.n_threads = settings.n_threads_batch = 1
    settings.type_k = settings.type_v = llama_cpp.llama_cpp.GGML_TYPE_F32
    settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for index, token in enumerate(IDS.tolist()):
        batch.token[index], batch.pos[index], batch.logits[index] = token, index, True
        batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
    if llama_cpp.llama_decode(context, batch):
        raise RuntimeError(f"llama.cpp cannot run {path.name}")
    pointer = ctypes.cast(llama_cpp.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
    logits_TV = np.ctypeslib.as_array(pointer, (len(IDS), VOCAB_SIZE)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits_TV


def ids_of(path: Path) -> dict[str, object]:
    """Ids of TEXTS without control tokens, and whether llama.cpp begins a text with BOS."""
    settings = llama_cpp.llama_model_default_params()
    settings.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {path.name}")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    found = []
    for text in TEXTS:
        encoded, buffer = text.encode(), (ctypes.c_int32 * 200)()
        count = llama_cpp.llama_tokenize(vocabulary, encoded, len(encoded), buffer, len(buffer), False, False)
        found.append(list(buffer)[:count])
    adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocabulary))
    llama_cpp.llama_model_free(model)
    return {"adds_bos": adds_bos, "ids": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rules", nargs="+", default=[], help="rules by which vocabularies split text")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.gguf"
        logits = {
            f"{architecture}: {name}": logits_of(write_model(path, architecture, changes))
            for (architecture, name), changes in VARIANTS.items()
        }
        rules = {rule: ("gpt2", {"tokenizer.ggml.pre": rule}) for rule in options.rules}
        ids = {name: ids_of(write_tokenizer(path, *settings)) for name, settings in (TOKENIZERS | rules).items()}
    np.savez_compressed(options.out / "logits.npz", **logits)
    (options.out / "ids.json").write_text(json.dumps({"llama_cpp_python": llama_cpp.__version__, "found": ids}) + "\n")
    print(f"{len(logits)} models and {len(ids)} tokenizers by llama.cpp ({llama_cpp.__version__}): {options.out}")


if __name__ == "__main__":
    main()
