"""Labels that are probably wrong, by confident learning on cross-validated probabilities.

Northcutt, Jiang and Chuang 2021 (arXiv:1911.00068), with character n-grams and logistic regression in scikit-learn;
`prune by noise rate` is left out: every row that the rule names is shown, least confident first.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

FOLDS = 3
MOST_LABELS = 150
FEATURES = 1 << 16
TRUSTED = 0.6  # accuracy below which the doubts of the classifier say little


def likely_wrong(texts: list[str], labels: list[str]) -> list[tuple[int, str]]:
    """(index, more likely label) of rows whose label is doubted, the most doubtful first.

    A row is doubted when another label is at least as probable as it is on average for that label's own rows,
    and its own label is below its average (the paper's thresholds). Labels of fewer than 2 * FOLDS rows are
    not judged. [] where there is too little to judge by.
    """
    counts = Counter(labels)
    kept = [at for at, label in enumerate(labels) if counts[label] >= 2 * FOLDS]
    names = sorted({labels[at] for at in kept})
    if not 2 <= len(names) <= MOST_LABELS or len(kept) < 60:
        return []
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    codes = {name: code for code, name in enumerate(names)}
    given = np.array([codes[labels[at]] for at in kept])
    hashing = HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), n_features=FEATURES, alternate_sign=False, norm=None
    )
    # Weighed over all folds at once: document frequencies know nothing of the labels.
    features = TfidfTransformer(sublinear_tf=True).fit_transform(
        hashing.transform([texts[at] for at in kept])
    )
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=5, tol=None, random_state=0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    probable = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
    own = probable[np.arange(len(given)), given]
    if (probable.argmax(axis=1) == given).mean() < TRUSTED:
        return []
    thresholds = np.array([own[given == code].mean() for code in range(len(names))])
    above = np.where(probable >= thresholds, probable, 0)
    best = above.argmax(axis=1)
    doubted = np.flatnonzero((above.max(axis=1) > 0) & (best != given) & (own < thresholds[given]))
    margin = probable[doubted, best[doubted]] - own[doubted]
    return [(kept[at], names[best[at]]) for at in doubted[np.argsort(-margin, kind="stable")]]
