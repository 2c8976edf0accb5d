"""Each prompt is read once, equal requests are scored once, and each gets the mean over its own views."""

import numpy as np

from biomechgpt.answering.prompt_plan import average, requests_by_view, score_request
from biomechgpt.answering.scores import Scores
from biomechgpt.prompts.encoding import MotionTokens

MOTION = MotionTokens([1, 2], [[3, 4]])


def request(motions, task="cadence", views=2):
    return score_request(motions, task, ["How fast?"], False, views)


def test_the_worked_example_of_the_docstring():
    requests = [request([MOTION], task) for task in ("cadence", "impaired")]
    by_view = requests_by_view(requests)
    assert by_view == {((1, 2),): requests, ((3, 4),): requests}
    scored = [
        (request, template, Scores(np.array([p, 1 - p]), 1.0, -p))
        for view, p in zip(by_view, (0.2, 0.6), strict=True)
        for request in by_view[view]
        for template in (0, 1)
    ]
    averaged = average(scored)
    assert list(averaged) == requests
    for of_request in averaged.values():
        assert len(of_request) == 2
        for scores in of_request:
            np.testing.assert_allclose(scores.probability, [0.4, 0.6])
            assert scores.log_likelihood == -0.6


def test_so_many_views_are_averaged_over_as_were_asked_for_and_every_movement_has():
    assert request([MOTION], views=1).views == (((1, 2),),)
    assert request([MOTION, MotionTokens([5])]).views == (((1, 2), (5,)),)
    assert request([MOTION, MOTION]).views == (((1, 2), (1, 2)), ((3, 4), (3, 4)))
    assert request([MotionTokens([7], [[7]])]).views == (((7,),),)
    shifted = MotionTokens([1, 2], [[3, 4], [1], [3]])
    assert request([shifted], views=4).views == (((1, 2),), ((3, 4),), ((1,),), ((3,),))
    assert request([shifted], views=3).views == (((1, 2),), ((3, 4),), ((1,),))
    assert request([shifted, MOTION], views=4).views == (((1, 2), (1, 2)), ((3, 4), (3, 4)))


def test_equal_requests_are_scored_once_and_a_shared_view_is_read_once():
    first, second = request([MOTION]), request([MotionTokens([3, 4], [[1, 2]])])
    again = request([MotionTokens(np.array([1, 2]), [np.array([3, 4])])])
    assert again == first
    by_view = requests_by_view([first, second, again])
    assert by_view == {((1, 2),): [first, second], ((3, 4),): [first, second]}
