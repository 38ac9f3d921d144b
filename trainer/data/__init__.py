"""The data room: a file → records → rows → splits, every fault named. Nothing here imports torch."""

from trainer.data.check import DataProfile, Lengths, profile
from trainer.data.files import convert_file, preview, split_file
from trainer.data.findings import Finding
from trainer.data.splits import Splits, split
from trainer.data.stage import load_rows

__all__ = [
    "DataProfile", "Finding", "Lengths", "Splits", "convert_file", "load_rows", "preview", "profile", "split",
    "split_file",
]  # fmt: skip
