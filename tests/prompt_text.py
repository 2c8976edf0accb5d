"""Prompts as text, written by hand: what `PromptEncoder` is compared with. Gemma's chat template."""

from biomechgpt.prompts.encoding import GEMMA_TURNS, MOTION_END, MOTION_START, motion_token

TEXT_PREFIX, QUESTION_END = GEMMA_TURNS.dialogue_start, GEMMA_TURNS.question_end
ANSWER_END, TURN_END = GEMMA_TURNS.answer_end, GEMMA_TURNS.next_question


def prefix_text(tokens):
    """The opening of a dialogue about a movement, up to where a question follows."""
    motion = "".join(motion_token(code) for code in tokens)
    return f"{TEXT_PREFIX}{MOTION_START}{motion}{MOTION_END}"


def question_text(question):
    return question + QUESTION_END


def answer_text(answer):
    return answer + ANSWER_END
