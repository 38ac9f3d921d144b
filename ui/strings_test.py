"""Strings of the Test tab beyond its export: push, side by side, live score, blind votes. Part of i18n.py's table."""

TEST: dict[str, tuple[str, str]] = {  # key: (en, zh-TW)
    "stage.upload": ("uploading", "上傳中"),
    "push.title": ("Upload to the Hugging Face Hub", "上傳到 Hugging Face Hub"),
    "push.repo": ("Repository, OWNER/NAME", "儲存庫：擁有者/名稱"),
    "push.what": ("What", "上傳內容"),
    "push.what_adapter": ("trained weights", "訓練出的權重"),
    "push.what_merged": ("merged model", "合併後的模型"),
    "push.what_gguf": ("GGUF", "GGUF"),
    "push.what_dataset": ("the rows", "資料集"),
    "push.make_public": ("Let everybody see it", "公開"),
    "push.licence": ("The base's licence, if it is not known", "基底模型的授權（未知時填寫）"),
    "push.list": ("Show what would go up", "列出要上傳的檔案"),
    "push.go": ("Upload", "上傳"),
    "push.file": ("file", "檔案"),
    "push.private": ("private", "不公開"),
    "push.public": ("public", "公開"),
    "push.to": ("To {repo} ({seen}):", "上傳到 {repo}（{seen}）："),
    "push.total": ("{n} files, {size}", "共 {n} 個檔案，{size}"),
    "push.dry_command": (
        "Nothing was sent; the same command with --yes sends it.",
        "尚未上傳；同一個指令加上 --yes 才會上傳。",
    ),
    "push.dry": ("Nothing has been sent yet.", "尚未上傳任何檔案。"),
    "push.no_token": (
        "No token of the Hub is here: set HF_TOKEN before starting Tunesmith, or run `hf auth login`.",
        "找不到 Hub 的權杖：啟動 Tunesmith 前設定 HF_TOKEN，或執行 `hf auth login`。",
    ),
    "push.started": ("The upload is queued; its state stands above.", "已排入佇列，狀態顯示在上方。"),
    "push.done": ("Uploaded: {address} at {tag}", "已上傳：{address}，版本 {tag}"),
    "push.card": ("Model card", "模型卡"),
}
