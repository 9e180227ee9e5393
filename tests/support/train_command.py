"""The words of a small `logitcask train`."""

from pathlib import Path


def train_words(dataset: str, student: Path, run: Path, *more: str) -> list[str]:
    """Three steps of two windows on the CPU."""
    return ["train", dataset, "--student", str(student), "--out", str(run), "--batch-windows", "2",
            "--steps", "3", "--device", "cpu", *more]  # fmt: skip
