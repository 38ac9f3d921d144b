"""Strings of the Runs tab and of `tunesmith run`: live figures, what the curve shows, sweeps. Key: (en, zh-TW)."""

RUNS: dict[str, tuple[str, str]] = {
    "runs.peak": ("{n:.1f} GB at most", "最多 {n:.1f} GB"),
    "runs.a_step": ("{n:.3g} s a step", "每步 {n:.3g} 秒"),
    "runs.measure": ("Also show", "另外顯示"),
    "runs.learning_rate": ("learning rate", "學習率"),
    "runs.grad_norm": ("gradient norm", "梯度範數"),
    "runs.tokens_per_second": ("tokens a second", "每秒 token 數"),
    "runs.memory_gb": ("memory, GB", "記憶體（GB）"),
    "runs.gpu_use": ("GPU use", "GPU 使用率"),
    "runs.mean_token_accuracy": ("token accuracy", "token 準確率"),
    "runs.eval_mean_token_accuracy": ("token accuracy in the evaluation", "評估時的 token 準確率"),
    "runs.rewards/accuracies": ("pairs ranked rightly", "排序正確的比例"),
    "runs.rewards/margins": ("reward margin", "獎勵差"),
    "runs.eval_rewards/accuracies": ("pairs ranked rightly in the evaluation", "評估時排序正確的比例"),
    "runs.reward": ("reward", "獎勵"),
    "runs.eval_accuracy": ("accuracy in the evaluation", "評估時的準確率"),
    "runs.eval_macro_f1": ("macro-F1 in the evaluation", "評估時的 macro-F1"),
    "runs.flags": ("What the curve shows", "曲線透露的問題"),
    "runs.read": ("read about it", "看說明"),
    "runs.adjusted": (
        "out of memory at step {step}: batch_size {batch_size}, gradient_accumulation {gradient_accumulation} from there",
        "第 {step} 步記憶體不足：之後改用 batch_size {batch_size}、gradient_accumulation {gradient_accumulation}",
    ),
    "runs.repeat": ("Repeat", "重跑"),
    "runs.repeated": ("{id} repeats {of} and is queued", "{id} 會重跑 {of}，已排入佇列"),
    "runs.dashboard": ("trackio dashboard", "trackio 儀表板"),
    "repeat.same": (
        "the same as {of}: final loss {loss}, weights equal to the last bit",
        "與 {of} 相同：最終損失 {loss}，權重逐位元一致",
    ),
    "repeat.differs": (
        "not the same as {of}: final loss {loss} there {other}; what differs: {what}",
        "與 {of} 不同：最終損失 {loss}，原本 {other}；不同之處：{what}",
    ),
    "repeat.nothing_known": ("nothing that is recorded", "紀錄中沒有差異"),
    "repeat.unknown": ("{of} kept no result to compare with", "{of} 沒有留下可比較的結果"),
    "sweep.title": ("Sweep {id}", "參數搜尋 {id}"),
    "sweep.best": (
        "Best: {run} with {score} {value:.3f} ({values})",
        "最佳：{run}，{score} {value:.3f}（{values}）",
    ),
    "sweep.caveat": (
        "Chosen on the same {n} test rows on which it is reported, so the score is a little too good. On so few rows "
        "differences below {margin:.3f} may be chance; not told apart from it: {others}.",
        "這個分數就是用挑選時的同 {n} 筆測試資料算的，所以略為偏高。資料這麼少，{margin:.3f} 以內的差異可能只是運氣；"
        "無法與它分出高下的有：{others}。",
    ),
    "sweep.caveat_loss": (
        "Chosen by a loss on few rows; small differences may be chance.",
        "依少量資料上的損失挑選；差異小時可能只是運氣。",
    ),
    "sweep.none": ("none", "無"),
    "sweep.open": ("{done} of {total} runs have ended", "{total} 個訓練中已結束 {done} 個"),
    "sweep.score": ("score", "分數"),
    "sweep.choose": ("Sweep", "參數搜尋"),
    "sweep.accuracy": ("accuracy", "準確率"),
    "sweep.exact_match": ("exact match", "完全相符率"),
    "sweep.macro_f1": ("macro-F1", "macro-F1"),
    "sweep.eval_loss": ("evaluation loss", "評估損失"),
    "sweep.loss": ("loss", "損失"),
}
