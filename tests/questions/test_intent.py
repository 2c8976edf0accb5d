"""The intent classifier maps questions in other words to their task, and refuses what no task asks."""

from biomechgpt.questions.intent import IntentClassifier
from example_trials import ALL_TASKS, TASKS

FREE = {
    "activity": ["Which exercise is being performed here?", "Could you tell me what this person is doing?"],
    "impaired": ["Does this person move normally?", "Is the gait of the patient impaired, yes or no?"],
    "diagnosis": ["Could you name the most likely diagnosis?", "What condition might this patient have?"],
    "assistive_device": [
        "Is a cane or a walker being used?",
        "What kind of walking aid does the patient need?",
    ],
    "falls_history": ["Has the patient fallen during the last months?", "Any recent falls?"],
    "walking_speed": ["How fast does this person walk, in m/s?", "Could you estimate the gait speed?"],
    "cadence": ["How many steps per minute are these?", "Could you tell me the cadence of the walk?"],
    "tug_time": ["In how many seconds was the TUG completed?", "How long did this timed up and go last?"],
    "fsst_time": ["How many seconds did the FSST take?", "What was the time in the four square step test?"],
    "description": ["Please describe this walk for me.", "Summarise how this person moves, please."],
}


def test_questions_in_other_words_are_recognised_and_those_out_of_scope_are_not():
    classifier = IntentClassifier(ALL_TASKS)
    asked = [(question, task) for task, questions in FREE.items() for question in questions]
    trained = {p for task in ALL_TASKS.values() for p in task.templates}
    assert not trained & {question for question, _ in asked}
    found = [classifier.task(question, list(FREE)) for question, _ in asked]
    wrong = [(a, f) for a, f in zip(asked, found, strict=True) if f not in (a[1], None)]
    assert wrong == []
    assert None not in found
    refusal = ALL_TASKS["out_of_scope"]
    assert (
        sum(classifier.task(question, list(ALL_TASKS)) is not None for question in refusal.test_templates)
        <= 5
    )
    assert all(classifier.task(question, list(ALL_TASKS)) is None for question in refusal.templates)


def test_a_task_is_recognised_among_those_that_can_be_asked_and_none_where_nothing_can_be_refused():
    classifier = IntentClassifier(ALL_TASKS)
    compared = ["which_impaired", "quicker", "speed_change"]
    assert classifier.task("Which of the two persons is the impaired one?", compared) == "which_impaired"
    assert classifier.task("What is the cadence of this walk?", ["cadence"]) == "cadence"
    assert classifier.task("What is the cadence of this walk?", compared) is None
    assert IntentClassifier(TASKS).task("What is the cadence of this walk?", ["cadence"]) is None
