"""What a run says of itself, in both languages. status.json keeps the code and values beside the English text."""

from __future__ import annotations

from typing import Any

from kb.errors import told

MISTAKE = "mistake"  # code of a run that ended on a user's mistake; its message is told as it was raised

MESSAGES: dict[str, dict[str, str]] = {
    "resumes": {
        "en": "goes on from step {step}",
        "zh-TW": "從第 {step} 步接續",
    },
    "starts_over": {
        "en": "no complete checkpoint was left, so it starts over",
        "zh-TW": "沒有完整的檢查點，因此從頭開始",
    },
    "stopping": {
        "en": "asked to stop",
        "zh-TW": "已要求停止",
    },
    "saving": {
        "en": "stopping: writing a checkpoint",
        "zh-TW": "停止中：正在寫入檢查點",
    },
    "cancelled": {
        "en": "cancelled at step {step}; resume goes on from step {saved}",
        "zh-TW": "在第 {step} 步取消；按繼續會從第 {saved} 步接續",
    },
    "cancelled_unsaved": {
        "en": "cancelled before the first checkpoint; resume starts over",
        "zh-TW": "在第一個檢查點之前取消；按繼續會從頭開始",
    },
    "cancelled_queued": {
        "en": "cancelled while it waited in the queue",
        "zh-TW": "排隊時取消",
    },
    "cancelled_work": {
        "en": "cancelled; start it again when you like",
        "zh-TW": "已取消；隨時可以重新開始",
    },
    "lost": {
        "en": "the worker was killed, by hand or for want of memory, at step {step}; resume goes on from step {saved}",
        "zh-TW": "工作程序在第 {step} 步被終止（手動或記憶體不足）；按繼續會從第 {saved} 步接續",
    },
    "lost_unsaved": {
        "en": "the worker was killed, by hand or for want of memory, before a checkpoint; resume starts over",
        "zh-TW": "工作程序在第一個檢查點之前被終止（手動或記憶體不足）；按繼續會從頭開始",
    },
    "lost_work": {
        "en": "the worker was killed, by hand or for want of memory; start it again",
        "zh-TW": "工作程序被終止（手動或記憶體不足）；請重新開始",
    },
    "hung": {
        "en": "the worker gave no sign of life for {minutes} minutes and was ended; resume goes on from step {saved}",
        "zh-TW": "工作程序 {minutes} 分鐘沒有回應，已被終止；按繼續會從第 {saved} 步接續",
    },
    "not_started": {
        "en": "the worker could not start: {error}",
        "zh-TW": "工作程序無法啟動：{error}",
    },
    "place_checked": {
        "en": "looking whether {place} is ready, and installing what it lacks",
        "zh-TW": "檢查 {place} 是否就緒，並安裝缺少的套件",
    },
    "place_sent": {
        "en": "sending the run to {place}",
        "zh-TW": "把這次訓練傳送到 {place}",
    },
    "place_started": {
        "en": "started on {place}",
        "zh-TW": "已在 {place} 啟動",
    },
    "unreachable": {
        "en": "{place} has not answered for {minutes} minutes ({error}); the run there goes on, and is looked for again",
        "zh-TW": "{place} 已 {minutes} 分鐘沒有回應（{error}）；那裡的訓練仍會繼續，稍後再試",
    },
    "reattaches": {
        "en": "this machine was away; the run is looked for where it was started",
        "zh-TW": "這台機器曾中斷；正在回到原處尋找這次訓練",
    },
    "cancelled_away": {
        "en": "{where} could not be reached to cancel: the run may go on there; resume finds it again",
        "zh-TW": "無法連上 {where} 取消：那裡的訓練可能還在進行；按繼續會再找到它",
    },
    "scoring_tuned": {
        "en": "scoring the trained model on {rows} test rows",
        "zh-TW": "正在用 {rows} 筆測試資料為訓練後的模型評分",
    },
    "scoring_base": {
        "en": "scoring the untrained base on the same {rows} rows",
        "zh-TW": "正在用同樣的 {rows} 筆資料為未訓練的基礎模型評分",
    },
    "not_finite": {
        "en": "the loss is not a number at step {step}: lower learning_rate, or look for broken rows",
        "zh-TW": "第 {step} 步的損失不是數字：請降低 learning_rate，或檢查是否有壞資料",
    },
    "oom": {
        "en": "out of memory at step {step}: halve batch_size ({batch_size}) and double gradient_accumulation "
        "({gradient_accumulation}), lower max_length ({max_length}), or turn gradient_checkpointing on",
        "zh-TW": "第 {step} 步記憶體不足：把 batch_size（{batch_size}）減半並把 gradient_accumulation"
        "（{gradient_accumulation}）加倍、降低 max_length（{max_length}），或開啟 gradient_checkpointing",
    },
    "oom_halved": {
        "en": "out of memory at step {step}: goes on from step {saved} with batch_size {batch_size} and "
        "gradient_accumulation {gradient_accumulation}, the same rows an update",
        "zh-TW": "第 {step} 步記憶體不足：改用 batch_size {batch_size}、gradient_accumulation "
        "{gradient_accumulation}（每次更新的資料不變），從第 {saved} 步繼續",
    },
    "does_not_fit": {
        "en": "two steps on the longest rows did not fit into {room} GB, so nothing was trained; what would fit: "
        "{changes}",
        "zh-TW": "最長的資料試跑兩步就放不進 {room} GB，因此沒有開始訓練；放得下的改法：{changes}",
    },
    "killed_for_memory": {
        "en": "the system ended the worker for want of memory at step {step}; lower batch_size or max_length in a new "
        "version, or free memory and resume from step {saved}",
        "zh-TW": "系統因記憶體不足，在第 {step} 步終止了工作程序；請在新版本降低 batch_size 或 max_length，"
        "或清出記憶體後從第 {saved} 步繼續",
    },
    "timeout": {
        "en": "reached its time limit of {hours} h at step {step}; resume goes on from step {saved} for as long again",
        "zh-TW": "在第 {step} 步達到時間上限 {hours} 小時；按繼續會從第 {saved} 步再跑同樣久",
    },
    "timeout_unsaved": {
        "en": "reached its time limit of {hours} h before the first checkpoint; raise time_limit_hours in a new version",
        "zh-TW": "在第一個檢查點之前達到時間上限 {hours} 小時；請在新版本提高 time_limit_hours",
    },
    "disk_full": {
        "en": "the disk is full ({error}); free some space, then resume",
        "zh-TW": "磁碟已滿（{error}）；請清出空間後再繼續",
    },
    "bug": {
        "en": "{error}; log.txt holds the whole of it",
        "zh-TW": "{error}；完整內容在 log.txt",
    },
}


def coded(code: str, **values: Any) -> dict[str, Any]:
    """Keys for `set_status`: the code, its values and the English sentence."""
    return {"code": code, "values": values, "message": MESSAGES[code]["en"].format(**values)}


def message(status: dict[str, Any], lang: str = "en") -> str:
    """A status's sentence in the language asked ("en" or "zh-TW"); a user's mistake reads as it was told."""
    template = MESSAGES.get(status.get("code") or "", {}).get(lang)
    if template:
        return template.format(**status["values"])
    return (
        told(status.get("message", ""), lang) if status.get("code") == MISTAKE else status.get("message", "")
    )
