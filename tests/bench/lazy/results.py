# SPDX-License-Identifier: Apache-2.0
"""The figures of all runs, and what is said about them."""

import statistics


class Results:
    """The figures of all runs, by (case, side, variant)."""

    def __init__(self):
        self.runs = []
        self.lines = []
        self.verdicts = []

    def add(self, case, side, variant, figures):
        self.runs.append({"case": case, "side": side, "variant": variant} | figures)

    def has(self, case, side, variant):
        return any(True for _ in self._of(case, side, variant))

    def _of(self, case, side, variant):
        return (run for run in self.runs
                if (run["case"], run["side"], run["variant"]) == (case, side, variant))

    def median(self, case, side, variant, name):
        values = [run[name] for run in self._of(case, side, variant) if name in run]
        return statistics.median(values) if values else None

    def judge(self, what, value, limit, most=True, digits=2):
        """Notes a verdict; nothing if it was not measured."""
        if value is None:
            return
        held = value <= limit if most else value >= limit
        self.verdicts.append({"what": what, "value": value, "limit": limit, "most": most,
                              "held": held, "text": f"{'held  ' if held else 'MISSED'} {what}: "
                              f"{value:.{digits}f}, wanted {'<=' if most else '>='} {limit}"})


def ratio(one, other):
    return None if one is None or not other else one / other


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"
