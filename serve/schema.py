"""What the API takes and gives, and how the model's answers become it."""

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from biomechgpt.motion import parameters
from biomechgpt.motion.parameters import FACTS
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.questions.tasks import REFUSED

LONGEST = 2000
"""Characters of a question."""
STRANGE = "I cannot say: this movement is unlike those that I have learned from."
NOTICE = "No clinical claim is made: this is research software, not a medical device."


class Stated(BaseModel):
    """A fact that an answer states, and the same measured from the joint angles (null where they do not say):
    within their tolerance they agree. usual: in most healthy adults' walks, null without a norm.
    normal_range_source: publication of that norm, with a mark if it is unverified.
    normal_range_verified: whether the norm's numbers were compared with the publication."""

    name: str
    unit: str
    stated: float
    measured: float | None
    agrees: bool
    usual: tuple[float, float] | None
    normal_range_source: str | None
    normal_range_verified: bool | None


class Answer(BaseModel):
    """task: which of the model's tasks was asked, null for a question of one's own; label or value: what the
    answer states, both null where it states neither. probabilities: of each label, calibrated on participants
    nobody was trained on; possible: the labels that cannot be ruled out, likeliest first; low, high: an interval of
    the value. Set and interval hold the truth 9 times in 10 where this is `promised`: enough participants were
    there to fit them. A question of one's own has none of them. refused: the question is none that movement can
    answer, or the movement is unlike those that the model has learned from. risk: the least share of wrong answers
    that can be had while this one is still given; more than is wanted, and the answer is `uncertain`, with advice
    on what would help. facts: that a description states."""

    task: str | None
    question: str
    text: str
    label: str | None = None
    value: float | None = None
    unit: str | None = None
    uncertain: bool = False
    advice: str | None = None
    risk: float | None = None
    probabilities: dict[str, float] = {}
    possible: list[str] = []
    promised: bool = False
    low: float | None = None
    high: float | None = None
    refused: bool = False
    facts: list[Stated] = []


class About(BaseModel):
    """fingerprint: of the bundle; base: its language base; data: nature of the data it was trained on."""

    fingerprint: str
    base: str
    data: str


class Explanation(BaseModel):
    """What an answer rests on. of: a label's probability, or a number's mean; seconds: (begin, end, weight) of
    parts of the recording; joints: weight of each joint; points: the same at the figure's points. A weight: by how
    much `of` is less without that part: below 0 the part speaks against it. It says what the model used, not what
    is wrong with anybody."""

    answer: Answer
    of: float
    seconds: list[tuple[float, float, float]]
    joints: dict[str, float]
    points: dict[str, float]
    model: About
    notice: str = NOTICE


class Recorded(BaseModel):
    """What was found in a recording. used_s: how much of it the model can read; repaired: gaps filled in it."""

    name: str
    frames: int
    duration_s: float
    used_s: float
    frame_rate_hz: float
    knee_flexion: str
    missing_joints: list[str]
    repaired: str | None

    def joint_mask(self) -> np.ndarray:
        return ~np.isin(NAMES, self.missing_joints)


class Answers(BaseModel):
    """recording: what was asked about; other: what it was compared with; more: further ones of the same person, who
    is asked about then."""

    answers: list[Answer]
    model: About
    notice: str = NOTICE
    recording: Recorded | None = None
    other: Recorded | None = None
    more: list[Recorded] = []


class Motion(BaseModel):
    """tokens, mirrored (those of the mirror image, where the model reads it too) and tokenizer (its fingerprint):
    what /v1/chat takes; figure: a stick figure, positions in metres, a frame a row."""

    recording: Recorded
    tokens: list[int]
    mirrored: list[int] | None = None
    tokenizer: str
    figure: dict[str, Any]


class Turn(BaseModel):
    role: str = Field(pattern="^(user|assistant)$")
    content: str = Field(min_length=1, max_length=LONGEST)


Tokens = Annotated[list[int], Field(min_length=1, max_length=20_000)]
OneOrTwo = Tokens | Annotated[list[Tokens], Field(min_length=2, max_length=2)]


class Chat(BaseModel):
    """The last message is the question. A model that was trained on conversations reads those before it too.
    tokens: of a movement, or of each of two that are compared. mirrored: the same of their mirror images, where
    /v1/motions gave them; without, the answer is about the movement as it is alone. tokenizer: that made the
    tokens; another one than the model's is refused."""

    tokens: OneOrTwo
    mirrored: OneOrTwo | None = None
    tokenizer: str | None = None
    messages: list[Turn] = Field(min_length=1, max_length=200)


def stated_facts(said: dict[str, float], known: dict[str, float | None]) -> list[Stated]:
    found = []
    for name, value in said.items():
        fact, measured = FACTS[name], known.get(name)
        source = parameters.normal_range_source(name)
        found.append(
            Stated(
                name=fact.says,
                unit=fact.unit,
                stated=value,
                measured=None if measured is None else round(measured, fact.decimals),
                agrees=measured is not None and abs(measured - value) <= fact.tolerance,
                usual=parameters.usual(name),
                normal_range_source=source.shown if source else None,
                normal_range_verified=source.verified if source else None,
            )
        )
    return found


def strange_answer(tasks: Any, name: str | None, question: str) -> Answer:
    unit = tasks[name].unit if name else None
    return Answer(task=name, question=question, text=STRANGE, unit=unit, refused=True)


def answer_of(tasks: Any, name: str | None, question: str, weighed: Any) -> Answer:
    task = tasks[name] if name else None
    if weighed.strange:
        return strange_answer(tasks, name, question)
    stated = task.parse(weighed.text) if task else None
    return Answer(
        task=name,
        question=question,
        text=weighed.text,
        label=stated if isinstance(stated, str) else None,
        value=stated if isinstance(stated, float) else None,
        unit=task.unit if task else None,
        probabilities=dict(zip(weighed.choices, weighed.probability, strict=True)),
        possible=weighed.possible,
        risk=weighed.risk,
        promised=weighed.promised,
        low=weighed.low,
        high=weighed.high,
        refused=any(t.kind == "refusal" and t.parse(weighed.text) == REFUSED for t in tasks.values()),
    )


def sure(answer: Answer, wanted: float | None, usual_s: float, duration_s: float | None) -> Answer:
    """The answer, or "uncertain" where more would be wrong among those so unsure than is wanted."""
    if wanted is None or not answer.probabilities or answer.refused:
        return answer
    if answer.risk is not None and answer.risk <= wanted:
        return answer
    longer = duration_s is not None and duration_s < usual_s
    also = (
        f", or a longer one: this has {duration_s:.0f} s, those it learned from {usual_s:.0f}"
        if longer
        else ""
    )
    return answer.model_copy(
        update={
            "uncertain": True,
            "text": f"Uncertain; most likely {answer.text}.",
            "advice": f"What would help: another recording of this person{also}.",
            "label": None,
        }
    )


def notice_of(about: About) -> str:
    if "synthetic" not in about.data:
        return NOTICE
    return f"{NOTICE} Trained on synthetic data: its answers mean nothing about a patient."
