"""How often a model answers where it should not, and how often it withholds an answer that it could give.

Computed from the status of each answer. Knows nothing about models.
"""

from typing import Any

import pandas as pd

NO_RESTRAINT: dict[str, Any] = {"tasks": {}, "unlike": {}}
"""The result without any answer that has a status."""


def restraint(answers: pd.DataFrame) -> dict[str, Any]:
    """The share of questions that are answered although they do not apply, and of those that are withheld.

    answers: table of an answers artifact. `applies_true` is false for questions that annotations rule out.
    tasks: {task: inapplicable, inapplicable_participants, answered_anyway, applicable, withheld}: counts, and
        shares of the questions. `withheld`: questions that apply and were taken not to. None: no question.
    unlike: {movements, participants, fitted_on, checked, refused}: number of movements, of participants that the
        check was fitted on, whether it ran, and the share of movements that it called unlike the training data.
    """
    if "status" not in answers:
        return NO_RESTRAINT
    tasks = {}
    for task, rows in answers[answers["status"].notna()].groupby("task", sort=False):
        applicable, inapplicable = rows[rows["applies_true"]], rows[~rows["applies_true"]]
        tasks[str(task)] = {
            "inapplicable": len(inapplicable),
            "inapplicable_participants": int(inapplicable["participant"].nunique()),
            "answered_anyway": _share(inapplicable["status"].isin(["answered", "uncertain"])),
            "applicable": len(applicable),
            "withheld": _share(applicable["status"] == "does_not_apply"),
        }
    checks = answers[answers["other"].isna() & answers["unlike"].notna()].drop_duplicates("trial")
    unlike: dict[str, Any] = {"movements": len(checks)}
    if len(checks):
        first = checks["unlike"].iloc[0]
        unlike |= {
            "participants": int(first["participants"]),
            "fitted_on": first["fitted_on"],
            "checked": bool(all(check["checked"] for check in checks["unlike"])),
            "refused": _share(checks["unlike"].map(lambda check: check["unlike"])),
        }
    return {"tasks": tasks, "unlike": unlike}


def _share(values: pd.Series) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
