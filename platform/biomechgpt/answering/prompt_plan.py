"""What is read to score queries: which prompts, and which requests after each of them.

Worked example: a model averages over two views of a movement. Two queries ask `cadence` and `impaired` about one
movement.
- Each query becomes a `ScoreRequest` with both views: the movement's tokens, and those of its mirror image.
- `requests_by_view` gives two prompts, one for each view, with both requests after each.
- `average` gives each request the mean over its two views, for each template of its task.

Pure functions. Knows nothing about models.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from biomechgpt.answering.scores import Scores, mean_scores
from biomechgpt.prompts.encoding import MotionTokens

View = tuple[tuple[int, ...], ...]
"""The motion tokens of each movement of one prompt."""


@dataclass(frozen=True)
class ScoreRequest:
    """All answers to one question about the movements of one prompt. Equal requests are scored once.

    views: the prompts to average over: the movements, and the same movements read in other ways.
    task: the task whose answers are scored.
    turns: the conversation; its last turn is the question.
    full_distribution: a number's whole distribution is wanted, not only its quantiles.
    """

    views: tuple[View, ...]
    task: str
    turns: tuple[str, ...]
    full_distribution: bool


def score_request(
    motions: Sequence[MotionTokens], task: str, turns: Sequence[str], full_distribution: bool, views: int
) -> ScoreRequest:
    """The request for movements of one prompt.

    views: number of views to average over; fewer if a movement has fewer.
    """
    of_motions = [[motion.tokens, *motion.views[: views - 1]] for motion in motions]
    # Views with the same tokens are read once. `zip` ends with the movement that has the fewest.
    distinct = dict.fromkeys(
        tuple(tuple(tokens) for tokens in view) for view in zip(*of_motions, strict=False)
    )
    return ScoreRequest(tuple(distinct), task, tuple(turns), full_distribution)


def requests_by_view(requests: Iterable[ScoreRequest]) -> dict[View, list[ScoreRequest]]:
    """{prompt: the distinct requests to score after it}: each prompt is read once for all that is asked of it."""
    by_view: dict[View, list[ScoreRequest]] = {}
    for request in dict.fromkeys(requests):
        for view in request.views:
            by_view.setdefault(view, []).append(request)
    return by_view


def average(scored: Iterable[tuple[ScoreRequest, int, Scores]]) -> dict[ScoreRequest, list[Scores]]:
    """{request: the scores with each template, in order, each the mean over the request's views}.

    scored: (request, number of the template, scores) for each view.
    """
    over_views: dict[ScoreRequest, dict[int, list[Scores]]] = defaultdict(lambda: defaultdict(list))
    for request, template, scores in scored:
        over_views[request][template].append(scores)
    return {
        request: [mean_scores(templates[number]) for number in sorted(templates)]
        for request, templates in over_views.items()
    }
