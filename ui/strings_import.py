"""What `tunesmith data import` and its part of the Data tab say, in both languages; joined to the table in i18n.py."""

from __future__ import annotations

IMPORT: dict[str, tuple[str, str]] = {  # key: (en, zh-TW)
    "import.title": ("Bring rows in from elsewhere", "從別處匯入資料"),
    "import.source": ("Source", "來源"),
    "import.example": (
        "FILE, FOLDER, hf:owner/name, sql:SELECT …, rest:https://…, web:https://…",
        "檔案、資料夾、hf:作者/名稱、sql:SELECT …、rest:https://…、web:https://…",
    ),
    "import.settings": ("Options, one a line: paging=cursor", "選項，一行一個：paging=cursor"),
    "import.limit": ("Rows at most (0: all)", "最多幾筆（0 為全部）"),
    "import.task": ("Into the data of this task", "放進哪個任務的資料"),
    "import.uploads": ("none: keep it with the uploads", "不放進任務，和上傳的檔案放在一起"),
    "import.look": ("Look at its columns", "看看有哪些欄位"),
    "import.go": ("Import", "匯入"),
    "import.column": ("{column} ({confidence})", "{column}（{confidence}）"),
    "import.unused": ("kept beside them", "一併保留"),
    "import.given": ("as given", "由你指定"),
    "import.name": ("by its name", "依欄名"),
    "import.synonym": ("by a name like it", "依相近的欄名"),
    "import.values": ("a guess by its values", "依內容猜測"),
    "import.first": ("First row", "第一筆"),
    "import.proposal": (
        "Format {format}. Say of each column what it is; the number is how sure the proposal is.",
        "格式：{format}。請確認每一欄是什麼；數字是提議的把握程度。",
    ),
    "import.wrote": ("{file}: {n} rows of {format}", "{file}：{n} 筆，格式 {format}"),
    "import.counts": (
        "{read} rows read, {written} written, {trainable} of them can be trained on",
        "讀取 {read} 筆，寫入 {written} 筆，其中 {trainable} 筆可以訓練",
    ),
    "import.same": ("the content is the same as the last time", "內容和上次相同"),
    "import.order": ("the same rows as the last time, in another order", "資料和上次相同，只是順序不同"),
    "import.content": (
        "the content has CHANGED since the last time: {before} rows then, {now} now",
        "內容和上次「不同」：上次 {before} 筆，這次 {now} 筆",
    ),
    "import.new": ("imported for the first time", "第一次匯入"),
    "import.saved": (
        "{n} pages in {folder}; to ask about them: tunesmith ingest {folder}",
        "{n} 頁已存入 {folder}；要拿來提問請執行：tunesmith ingest {folder}",
    ),
    "import.recorded": ("recorded in {record}", "已記錄在 {record}"),
}
