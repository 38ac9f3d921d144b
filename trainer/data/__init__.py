"""The data room: a file → records → rows → splits, every fault named. Nothing here imports torch."""

from trainer.data.card import write_card
from trainer.data.check import DataProfile, Lengths, check, profile
from trainer.data.files import convert_file, dedupe_file, make, preview, redact_file, repair_file, split_file
from trainer.data.findings import Finding
from trainer.data.history import rebuild
from trainer.data.splits import Splits, split
from trainer.data.stage import load_rows

__all__ = [
    "DataProfile", "Finding", "Lengths", "Splits", "check", "convert_file", "dedupe_file", "load_rows", "make", "preview",
    "profile", "rebuild", "redact_file", "repair_file", "split", "split_file", "write_card",
]  # fmt: skip
