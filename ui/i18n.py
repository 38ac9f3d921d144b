"""Every string of the screen in its two languages, and the table that serves them.

Gradio's own i18n follows the browser and knows no zh-HK; this one follows the reader's choice,
also for text that is made on the server.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from trainer.messages import MESSAGES
from ui.strings_data import MADE
from ui.strings_export import EXPORT
from ui.strings_import import IMPORT
from ui.strings_plan import PLAN
from ui.strings_runs import RUNS
from ui.strings_scores import SCORES
from ui.strings_test import TEST

LANGS = ("zh-TW", "en")
Translate = Callable[..., str]

STRINGS: dict[str, tuple[str, str]] = {  # key: (en, zh-TW)
    **PLAN,
    "title": ("Tunesmith", "Tunesmith"),
    "tagline": ("From a question to a tested model", "從一個問題，到一個測過的模型"),
    "tab.ask": ("Ask", "提問"),
    "tab.plan": ("Plan", "計畫"),
    "tab.runs": ("Runs", "訓練"),
    "tab.test": ("Test", "測試"),
    "tab.library": ("Library", "知識庫"),
    # library
    "library.search": ("Search the library", "搜尋知識庫"),
    "library.empty": ("Choose a page on the left, or search.", "從左邊選一頁，或直接搜尋。"),
    "library.nothing": ("Nothing found.", "沒有找到。"),
    "library.no_page": ("There is no page {id}.", "沒有 {id} 這一頁。"),
    "library.ask": ("Ask about this page", "針對這頁提問"),
    "library.ask_about": ("About “{title}”: ", "關於「{title}」："),
    "library.updated": ("Updated {date}", "更新於 {date}"),
    "library.contents": ("On this page", "本頁內容"),
    "library.related": ("Related", "相關頁面"),
    # ask
    "ask.placeholder": ("Describe your task, or ask about fine-tuning", "描述你的任務，或問任何微調的問題"),
    "ask.empty": (
        "Ask how to fine-tune for your task. Every sentence of the answer says where it comes from.",
        "問問你的任務該怎麼微調。回答的每一句都會附上出處。",
    ),
    "ask.example1": (
        "I have 9,000 Chinese reviews to classify by sentiment. How should I fine-tune?",
        "我有九千筆中文評論要做情感分類，該怎麼微調？",
    ),
    "ask.example2": ("What learning rate for LoRA?", "LoRA 的學習率該設多少？"),
    "ask.example3": (
        "Our knowledge changes daily. RAG or fine-tuning?",
        "知識每天都在變，該用 RAG 還是微調？",
    ),
    "ask.examples": ("For example", "例如"),
    "ask.send": ("Send", "送出"),
    "ask.new": ("New conversation", "新對話"),
    "ask.stop": ("Stop", "停止"),
    "ask.stopped": ("Stopped; this answer is not kept.", "已停止，這個回答不會保存。"),
    "ask.side": ("A plan for this", "適合的計畫"),
    "ask.side_empty": (
        "Describe a task (kind, language, how many rows) and a plan appears here.",
        "描述任務（種類、語言、資料筆數），這裡就會出現建議的計畫。",
    ),
    "ask.use_plan": ("Use this plan", "採用這個計畫"),
    "ask.backend": ("Answered by", "回答者"),
    "ask.sources": ("Sources", "出處"),
    "ask.unsupported": ("No passage supports this sentence", "沒有段落支持這一句"),
    "ask.unsupported_note": (
        "Sentences marked ⚠ are not supported by a passage.",
        "標有 ⚠ 的句子沒有段落支持。",
    ),
    "ask.nearest": ("Nearest pages", "最接近的頁面"),
    "ask.thinking": ("Thinking", "思考過程"),
    "ask.seconds": ("{n:.1f} s", "{n:.1f} 秒"),
    "ask.copy": ("Copy with sources", "連同出處複製"),
    "ask.open_page": ("open the page", "開啟這頁"),
    "ask.model": ("Who answers", "由誰回答"),
    "ask.model_auto": ("Automatic", "自動選擇"),
    "ask.model_extract": ("Quotes, no model", "直接引用，不用模型"),
    "ask.model_away": ("{name} (not answering now)", "{name}（目前沒有回應）"),
    "ask.pull": ("Get a model from Ollama", "從 Ollama 下載模型"),
    "ask.pull_name": ("Name of the model, for example qwen3:4b", "模型名稱，例如 qwen3:4b"),
    "ask.pull_start": ("Download", "下載"),
    "ask.pull_stopped": ("Stopped. Download it again to go on.", "已停止，再按一次下載會接續。"),
    "ask.pull_done": ("{name} is here and answers from now on.", "{name} 已下載，之後由它回答。"),
    "ask.earlier": ("Earlier conversations", "之前的對話"),
    "ask.earlier_none": (
        "Conversations are kept on this machine and listed here.",
        "對話會保存在這台機器上，列在這裡。",
    ),
    "ask.delete": ("Delete this conversation", "刪除這段對話"),
    "ask.delete_sure": ("Delete?", "刪除？"),
    "ask.liked": ("What is good about it? (optional)", "好在哪裡？（選填）"),
    "ask.disliked": ("What is wrong with it? (optional)", "哪裡不對？（選填）"),
    "ask.reason": ("Your reason", "你的理由"),
    "ask.reason_save": ("Save", "儲存"),
    "ask.not_kept": (
        "This answer was not kept, so it cannot be rated.",
        "這個回答沒有保存，無法評分。",
    ),
    "ask.preferences": ("Your ratings as training data", "把評分當訓練資料"),
    "ask.rows_kto": ("KTO, rows: {n}", "KTO {n} 筆"),
    "ask.rows_dpo": ("DPO, pairs: {n}", "DPO {n} 組"),
    "backend.plan": ("the rules of the advice (no model)", "建議規則（未用模型）"),
    "backend.extract": ("quoted from the library (no model)", "直接引用知識庫（未用模型）"),
    # runs
    "runs.choose": ("Run", "訓練"),
    "runs.none": (
        "No runs yet. Make a plan and press “{button}”.",
        "還沒有訓練。先擬定計畫，再按「{button}」。",
    ),
    "runs.cancel": ("Cancel", "取消"),
    "runs.resume": ("Resume", "繼續"),
    "runs.test": ("Test this model", "測試這個模型"),
    "runs.log": ("Log", "紀錄"),
    "runs.values": ("Values and reasons", "設定與理由"),
    "runs.step": ("step {step} of {total}", "第 {step}／{total} 步"),
    "runs.eta": ("{n} left", "還要 {n}"),
    "runs.loss": ("loss", "損失"),
    "runs.eval_loss": ("evaluation loss", "評估損失"),
    "runs.steps": ("step", "步數"),
    "runs.scores": ("Score on held-out rows", "保留資料上的成績"),
    "runs.accuracy": ("accuracy", "準確率"),
    "runs.macro_f1": ("macro-F1", "macro-F1"),
    "runs.tuned": ("trained model", "訓練後"),
    "runs.base": ("base model", "基底模型"),
    "runs.few_shot": ("base with examples", "基底模型＋範例"),
    "runs.majority": ("majority class", "多數類別"),
    "runs.n": ("{n} test rows", "{n} 筆測試資料"),
    "runs.class": ("class", "類別"),
    "runs.precision": ("precision", "精確率"),
    "runs.recall": ("recall", "召回率"),
    "runs.f1": ("F1", "F1"),
    "runs.support": ("rows", "筆數"),
    "runs.confusion": ("Rows: expected; columns: predicted", "列：正確答案；欄：模型預測"),
    "runs.cancelled": ("{id} is being cancelled; it keeps a checkpoint", "正在取消 {id}；會保留檢查點"),
    "runs.resumed": ("{id} is queued to go on", "{id} 已排入佇列繼續"),
    "state.queued": ("queued", "排隊中"),
    "state.starting": ("starting", "啟動中"),
    "state.running": ("running", "訓練中"),
    "state.done": ("done", "完成"),
    "state.failed": ("failed", "失敗"),
    "state.cancelled": ("cancelled", "已取消"),
    "state.lost": ("lost", "中斷"),
    "state.oom": ("out of memory", "記憶體不足"),
    "state.timeout": ("out of time", "時間到"),
    "plan.where": ("Where it runs", "在哪裡訓練"),
    "plan.where_local": ("this machine", "這台機器"),
    "plan.where_ssh": ("the machine of task_definition.yaml (ssh)", "task_definition.yaml 裡的機器（ssh）"),
    "plan.where_info": (
        "or ssh:HOST (a machine of your ssh configuration), ray:ADDRESS",
        "也可填 ssh:HOST（ssh 設定裡的機器）或 ray:ADDRESS",
    ),
    "runs.where": ("on {where}", "在 {where}"),
    "stage.place": ("preparing the other machine", "準備另一台機器"),
    "stage.data": ("reading the data", "讀取資料"),
    "stage.starter": ("making the starter model", "建立起步模型"),
    "stage.shrink": ("making a small model of the same kind", "建立同架構的小模型"),
    "stage.chat": ("one chat", "對話一次"),
    "stage.smoke": ("trying the longest rows", "先試最長的資料"),
    "stage.train": ("training", "訓練"),
    "stage.evaluate": ("scoring on held-out rows", "在保留資料上評分"),
    "stage.merge": ("merging", "合併權重"),
    "stage.gguf": ("writing GGUF", "寫出 GGUF"),
    "stage.parity": ("comparing with training", "與訓練時比對"),
    "stage.ollama": ("handing to Ollama", "交給 Ollama"),
    # test
    "test.export": ("Export and verify", "匯出並驗證"),
    "test.engine": ("Export to", "匯出到"),
    "test.llamacpp": ("llama.cpp (in this app)", "llama.cpp（內建）"),
    "test.ollama": ("Ollama", "Ollama"),
    "test.not_exported": (
        "Not exported yet: press “{button}”, it takes a moment.",
        "尚未匯出：按「{button}」，需要一點時間。",
    ),
    "test.parity_ok": (
        "Verified: llama.cpp answers as in training on {same} of {n} rows.",
        "已驗證：{n} 筆中有 {same} 筆，llama.cpp 的回答與訓練時相同。",
    ),
    "test.parity_bad": (
        "Not ready: llama.cpp answers as in training on only {same} of {n} rows. {cause}",
        "尚不可用：{n} 筆中只有 {same} 筆與訓練時相同。{cause}",
    ),
    "test.message": ("Say something to both models", "同時對兩個模型說話"),
    "test.temperature": ("Temperature", "溫度"),
    "test.max_tokens": ("Token limit", "token 上限"),
    "test.task_prompt": ("Use the task's own prompt", "套用任務的提示"),
    "test.none": ("No finished run yet.", "還沒有完成的訓練。"),
    "test.ollama_missing": (
        "Ollama does not answer at {host}; llama.cpp runs the same file here. Install Ollama from ollama.com.",
        "Ollama 在 {host} 沒有回應；這裡由 llama.cpp 執行同一個檔案。可到 ollama.com 安裝 Ollama。",
    ),
    "test.classifier": (
        "A classifier or reward model: it gives labels with probabilities, or scores; no words, and no export is needed. Type a text.",
        "這是分類器或獎勵模型：輸出標籤與機率，或分數，不產生文字，也不需匯出。請輸入一段文字。",
    ),
    "test.head_base": (
        "The base model has no head for these labels; there is nothing to compare.",
        "基礎模型沒有這些標籤的輸出頭，無從比較。",
    ),
    "test.base_missing": ("The base model was not exported.", "基底模型尚未匯出。"),
    "unit.seconds": ("{n} s", "{n} 秒"),
    "unit.minutes": ("{n} min", "{n} 分鐘"),
    "unit.hours": ("{n} h", "{n} 小時"),
    "no_gpu": ("no GPU", "沒有 GPU"),
    "hardware": (
        "{gpus}; {cores} cores, {ram} GB memory, {disk} GB free on disk",
        "{gpus}；{cores} 核心、{ram} GB 記憶體、磁碟剩餘 {disk} GB",
    ),
}


STRINGS |= EXPORT | TEST | RUNS
STRINGS |= IMPORT | MADE | SCORES
STRINGS |= {f"said.{code}": (texts["en"], texts["zh-TW"]) for code, texts in MESSAGES.items()}


STRINGS |= {  # the Data tab, and what `tunesmith data check` prints
    "tab.data": ("Data", "資料"),
    "data.error": ("stops training", "必須處理"),
    "data.warning": ("mind", "請留意"),
    "data.info": ("worth a look", "可以看看"),
    "data.clean": ("Nothing is wrong with this file.", "這個檔案沒有問題。"),
    "data.file": ("Data file", "資料檔"),
    "data.path": ("… or a path on this machine", "……或這台機器上的路徑"),
    "data.against": ("Test file to look for leaks (optional)", "比對外洩的測試檔（選填）"),
    "data.check": ("Check this file", "檢查檔案"),
    "data.empty": (
        "Give a data file (JSONL, JSON, CSV, TSV, Parquet, XLSX, CoNLL, text, Markdown, PDF); it is read here and sent nowhere.",
        "提供資料檔（JSONL、JSON、CSV、TSV、Parquet、XLSX、CoNLL、文字、Markdown、PDF）；只在本機讀取，不會送到別處。",
    ),
    "data.rows_of": ("{rows} rows of {read} can be trained on", "{read} 筆中有 {rows} 筆可以訓練"),
    "data.findings": ("Findings", "檢查結果"),
    "data.where": ("rows", "位置"),
    "data.why": ("why", "為什麼"),
    "data.repair": ("Repair: broken lines, encoding, useless rows", "修復：壞行、亂碼、無用的資料"),
    "data.dedupe": ("Remove repeats, near ones too", "移除重複（含近似）"),
    "data.redact": ("Redact personal data and keys", "遮蔽個資與金鑰"),
    "data.traditional": ("Write it all in Traditional Chinese", "全部轉成繁體"),
    "data.made": ("Made {name}; it is checked below.", "已產生 {name}，檢查結果如下。"),
    "data.preview": ("What is trained: show tokens", "看看會訓練哪些 token"),
    "data.model": ("Tokenizer of", "使用哪個模型的分詞器"),
    "data.carried": (
        "{n} of {of} tokens carry loss (highlighted)",
        "{of} 個 token 中有 {n} 個計入損失（反白）",
    ),
    "data.left_out": ("{n} rows are left out by the trainer", "{n} 筆會被訓練器略過"),
    "data.plan": ("Plan with this file", "用這個檔案做計畫"),
    "data.stopped": ("Stopped; nothing was written.", "已停止，沒有寫出任何東西。"),
    "data.none": ("Give a data file first.", "請先提供資料檔。"),
    "data.sizes": ("Labels", "標籤"),
    "data.lengths": ("Rows by their tokens", "各長度（token）的筆數"),
}


def translator(lang: str) -> Translate:
    """t(key, **values) in one language. A missing key is a programmer's error and raises KeyError."""
    column = 0 if lang == "en" else 1

    def translate(key: str, **values: object) -> str:
        text = STRINGS[key][column]
        return text.format(**values) if values else text

    return translate


def choose(header: str | None) -> str:
    """The screen's language for a browser's Accept-Language: any Chinese reads zh-TW, others English."""
    for part in (header or "").split(","):
        code = part.split(";")[0].strip().lower()
        if code.startswith("zh"):
            return "zh-TW"
        if code.startswith("en"):
            return "en"
    return "en"


def duration(seconds: float, t: Translate) -> str:
    """Seconds as a reader says them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return t("unit.seconds", n=round(seconds))
    if seconds < 5400:
        return t("unit.minutes", n=round(seconds / 60))
    return t("unit.hours", n=round(seconds / 3600, 1))


def screen_lang() -> str:
    """Language of messages on the terminal, from the locale."""
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return "zh-TW" if locale.startswith("zh") else "en"
