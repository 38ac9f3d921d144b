"""What can be wrong in a data file, told in both languages: the table of faults and the Finding made of it.

Kinds are counted by read.py (mended), convert.py (left out or mended) and check.py (measured).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One kind of fault. `rows` is how many it touches, `lines` the first of them in the file.

    `message` and `fix` are {"en", "zh-TW"}. An "error" stops training, a "warning" costs rows or quality.
    """

    kind: str
    severity: Severity
    rows: int
    lines: list[int]
    message: dict[str, str]
    fix: dict[str, str]


# kind: severity, (message en, zh-TW), (fix en, zh-TW). {n} is the number of rows.
FAULTS: dict[str, tuple[Severity, tuple[str, str], tuple[str, str]]] = {
    # mended while reading
    "duplicate_key": (
        "warning",
        ("{n} rows name a key twice; the last value counts", "{n} 筆資料的鍵重複；以最後一個值為準"),
        ("name each key once", "每個鍵只寫一次"),
    ),
    "nan": (
        "warning",
        ("{n} values are NaN or Infinity and read as empty", "{n} 個值是 NaN 或 Infinity，視為空值"),
        ("write null, or leave the key out", "寫成 null，或省略該鍵"),
    ),
    "ragged_row": (
        "warning",
        ("{n} rows have another number of cells than the header", "{n} 列的欄數和標題列不同"),
        ("quote cells that hold the separator", "含有分隔符號的欄位請加引號"),
    ),
    "nul_removed": (
        "warning",
        ("{n} texts held NUL characters, which were removed", "{n} 段文字含 NUL 字元，已移除"),
        ("remove them at the source", "請在來源移除"),
    ),
    "surrogate_replaced": (
        "warning",
        ("{n} texts held half a character (a lone surrogate), replaced by �", "{n} 段文字含半個字元（單獨的代理碼），已換成 �"),
        ("export the file again as UTF-8", "請重新以 UTF-8 匯出"),
    ),
    # left out while converting
    "empty_text": (
        "warning",
        ("{n} rows have no text and are left out", "{n} 筆資料沒有文字，已略過"),
        ("fill in the text or remove the rows", "補上文字或移除這些資料"),
    ),
    "no_label": (
        "warning",
        ("{n} rows have no label and are left out", "{n} 筆資料沒有標籤，已略過"),
        ("label the rows or remove them", "補上標籤或移除這些資料"),
    ),
    "no_answer": (
        "warning",
        ("{n} rows have no answer to learn and are left out", "{n} 筆資料沒有可學習的回答，已略過"),
        ("add the assistant's answer", "補上助理的回答"),
    ),
    "same_answers": (
        "warning",
        ("{n} pairs have the same answer twice and are left out", "{n} 組偏好資料的兩個回答相同，已略過"),
        ("give a better and a worse answer", "提供一好一壞兩個回答"),
    ),
    "unknown_role": (
        "warning",
        ("{n} rows have a turn of an unknown role and are left out", "{n} 筆資料含未知的角色，已略過"),
        ("use the roles system, user, assistant, tool", "角色請用 system、user、assistant、tool"),
    ),
    "broken_turn": (
        "warning",
        ("{n} rows have a turn that is no object and are left out", "{n} 筆資料的發言不是物件，已略過"),
        ("write each turn as {{role, content}}", "每段發言寫成 {{role, content}}"),
    ),
    "not_text": (
        "warning",
        ("{n} rows hold images or sound and are left out", "{n} 筆資料含圖片或聲音，已略過"),
        ("only text is trained", "只訓練文字"),
    ),
    "empty_turn": (
        "info",
        ("{n} empty turns were dropped", "{n} 段空白發言已略過"),
        ("remove them at the source", "請在來源移除"),
    ),
    "turns_after_answer": (
        "info",
        ("{n} rows end with a turn that no answer follows; it was dropped", "{n} 筆資料最後的發言沒有回答，該發言已略過"),
        ("end each conversation with the assistant", "每段對話以助理的發言結尾"),
    ),
    # measured
    "duplicates": (
        "warning",
        ("{n} rows repeat another row", "{n} 筆資料與其他資料重複"),
        ("remove the repeats; the split keeps them together meanwhile", "移除重複；切分時會把它們放在同一份"),
    ),
    "label_conflict": (
        "warning",
        ("{n} rows have the same text as another with a different label", "{n} 筆資料的文字相同但標籤不同"),
        ("decide which label is right", "決定哪個標籤正確"),
    ),
    "one_label": (
        "error",
        ("every row has the same label: there is nothing to learn", "所有資料的標籤都相同：沒有可學的東西"),
        ("add rows of other labels", "加入其他標籤的資料"),
    ),
    "rare_label": (
        "warning",
        ("{n} labels have fewer than 10 rows", "{n} 個標籤的資料少於 10 筆"),
        ("collect more rows of them, or join labels", "為這些標籤多收集資料，或合併標籤"),
    ),
    "label_spelling": (
        "warning",
        ("{n} labels differ only in case or spaces from another", "{n} 個標籤和另一個只差大小寫或空格"),
        ("spell each label in one way", "同一個標籤只用一種寫法"),
    ),
    "mixed_script": (
        "info",
        ("Traditional and Simplified Chinese are mixed", "繁體和簡體中文混用"),
        ("convert to one script if your users write one", "如果使用者只用一種，請轉成同一種"),
    ),
    "unused_column": (
        "info",
        ("{n} columns are not used", "有 {n} 個欄位沒有用到"),
        ("nothing, if they hold no text to train", "若其中沒有要訓練的文字，不需處理"),
    ),
}  # fmt: skip


def finding(kind: str, rows: int, lines: list[int] | None = None, **values: Any) -> Finding:
    """The Finding of a kind; `lines` are cut to the first five."""
    severity, message, fix = FAULTS[kind]
    told = [text.format(n=rows, **values) for text in (*message, *fix)]
    return Finding(
        kind,
        severity,
        rows,
        (lines or [])[:5],
        {"en": told[0], "zh-TW": told[1]},
        {"en": told[2], "zh-TW": told[3]},
    )
