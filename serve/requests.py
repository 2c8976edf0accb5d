"""What a request asks: its tasks and question, and the turns and motion tokens of a conversation, checked.

Knows nothing about HTTP paths, and asks no model.
"""

from collections.abc import Sequence
from itertools import chain

from biomechgpt.core.settings import InputError
from biomechgpt.questions.tasks import MeasuredTask, Tasks
from serve.errors import ApiError
from serve.model import ServedModel
from serve.schema import MAX_QUESTION_CHARS, Chat, ChatMessage

TaskQuestion = tuple[str | None, str]
"""A question: (task or None, words)."""


def parse_questions(tasks: Tasks, names: Sequence[str], question: str | None) -> list[TaskQuestion]:
    """The questions as (task or None, words), the one in free words last. Raises ApiError."""
    names = [name.strip() for joined in names for name in joined.split(",") if name.strip()]
    if "all" in names:
        names = list(tasks)
    names = list(dict.fromkeys(names))  # a task that is named twice is one question
    unknown = [name for name in names if name not in tasks]
    if unknown:
        message = f"tasks: expected all or some of {', '.join(tasks)}, found {unknown[0]!r}"
        raise ApiError("bad_request", message)
    queries: list[TaskQuestion] = [(name, tasks[name].templates[0]) for name in names]
    text = (question or "").strip()
    if text:
        if len(text) > MAX_QUESTION_CHARS:
            message = f"question: expected at most {MAX_QUESTION_CHARS} characters, found {len(text)}"
            raise ApiError("bad_request", message)
        # A question in the words of a template needs no intent classifier.
        matching = (
            name for name, task in tasks.items() if text.casefold() in map(str.casefold, task.templates)
        )
        queries.append((next(matching, None), text))
    if not queries:
        raise ApiError("bad_request", "expected `tasks` (names, or all) or a `question`, found neither")
    return queries


def count_questions(tasks: Tasks, queries: Sequence[TaskQuestion], most: int) -> int:
    """How many questions the model is asked: measured quantities need no model. Raises ApiError for too many."""
    count = sum(task is None or not isinstance(tasks[task], MeasuredTask) for task, _ in queries)
    if count > most:
        expected = f"tasks: expected at most {most} different questions to the model in one request"
        raise ApiError("bad_request", f"{expected}, found {count}")
    return count


def check_tokens(
    chat: Chat,
    movements: Sequence[Sequence[int]],
    views: Sequence[Sequence[Sequence[int]]],
    served: ServedModel,
) -> None:
    """Raises ApiError for motion tokens that are not this model's."""
    for name, of_movements in (("tokens", [movements]), ("views", views)):
        for tokens in chain.from_iterable(of_movements):
            try:
                served.layout.check(tokens)
            except InputError as error:
                raise ApiError("bad_request", f"{name}: {error}") from error
    if views and len(views) != len(movements):
        expected = f"views: expected those of {len(movements)} movements, as tokens has"
        raise ApiError("bad_request", f"{expected}, found {len(views)}")
    if chat.tokenizer not in (None, served.tokenizer):
        expected = f"tokenizer: expected the model's, {served.tokenizer}"
        raise ApiError("bad_request", f"{expected}, found tokens of {chat.tokenizer}")


def alternate_turns(messages: Sequence[ChatMessage]) -> list[str]:
    """The texts of a conversation, the user's and the assistant's in turn, the first and the last from the user.

    Of two messages in a row from the same side, the later one is kept.
    """
    turns: list[str] = []
    for message in messages:
        # After an even number of turns it is the user's turn.
        same_side = len(turns) % 2 == (message.role == "user")
        if same_side and turns:
            turns[-1] = message.content
        elif not same_side:
            turns.append(message.content)
    return turns
