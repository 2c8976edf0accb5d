"""The cohort: who was recorded doing what, as one artifact that every later stage reads.

It comes from a user's folder of recordings with an `annotations.csv`, from cohorts made before, or from the
embedded simulator; all take the same path. A cohort is Parquet shards of `trial.schema`, participants kept
together, a `splits.json`, a `cohort.json` that says what is in it and what was kept out, and a data card that
shows it. Knows nothing about tokens, questions or models.

recordings    a folder of files and what is annotated of them
annotations   tables of what is known of recordings, and what in them cannot be true
readers/      what each file format says, in the skeleton's order and signs
layouts/      whose recordings they are, where folders say it
quality       whether a recording can be believed
resampling    any frame rate to the cohort's
simulator     the embedded default: synthetic people (movement, activities, impairments)
splits        which participants are trained on, and which are held out
norms         what the literature says of healthy people's and patients' walking
gait          heel strikes, cycles, cadence, speed and steps of a walk
facts         what a movement's own angles say of it in numbers, an artifact of its own
drawing       a trial as stick figures and joint curves beside norms
card          what is in a cohort, for people and for programs
build         all of it through Ray Data into shards
export        a cohort back to OpenSim files
"""

from biomechgpt.cohort.build import CohortSettings, make_cohort
from biomechgpt.cohort.shards import Cohort, CohortInfo

__all__ = ["Cohort", "CohortInfo", "CohortSettings", "make_cohort"]
