"""The cohort: who was recorded doing what, as one artifact that every later stage reads.

It is made from a user's folder of recordings with an `annotations.csv`, from earlier cohorts, or from simulated
people; all take the same path. A cohort has Parquet shards of `trial.schema` (all trials of a participant in one
shard), `splits.json`, `cohort.json` (what is in it and what was kept out) and a data card that shows it. Knows
nothing about tokens, questions or models.

shards          reads a finished cohort: the class `Cohort`
build           makes a cohort, from simulated people, recordings or other cohorts
selection       its settings, whether enough is usable, and who is in which split
merge           one cohort of several
writing         shards, splits.json, cohort.json and the data card
folder          a folder of recordings and their annotations
annotations     annotations.csv, checked line by line
annotation_map  other tables, such as a REDCap export, through a YAML map
contradictions  annotations that cannot all be true
layouts/        folders that say by their layout who was recorded
splits          training, validation and test, by participant
data_card       what is in a cohort, for people and for programs
parameters      the motion parameters of a cohort, an artifact of its own
export          a cohort back to OpenSim files
"""

from biomechgpt.cohort.build import make_cohort
from biomechgpt.cohort.selection import CohortSettings
from biomechgpt.cohort.shards import Cohort, CohortInfo

__all__ = ["Cohort", "CohortInfo", "CohortSettings", "make_cohort"]
