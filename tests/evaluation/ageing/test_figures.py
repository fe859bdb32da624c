from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mien.evaluation.ageing.figures import _pooled


def test_spearman_over_all_renders_is_scipys_where_some_were_not_judged() -> None:
    generator, asked = np.random.default_rng(0), np.array([5.0, 15.0, 25.0, 35.0])
    judged = asked + 10 * generator.normal(size=(20, 4))
    judged[:, 2] = np.where(generator.random(20) < 0.8, np.nan, judged[:, 2])
    known = ~np.isnan(judged.ravel())
    theirs = stats.spearmanr(judged.ravel()[known], np.tile(asked, 20)[known]).statistic
    assert float(_pooled(judged, asked)(np.ones((1, 20)))[0]) == pytest.approx(theirs, abs=1e-12)
