"""The endpoint of conversations."""

from fastapi import APIRouter

from serve.gateway import GatewayDependency
from serve.schema import ERRORS, Answers, Chat

router = APIRouter()


@router.post("/v1/chat", responses=ERRORS)
async def chat(gateway: GatewayDependency, chat: Chat) -> Answers:
    """The answer to the last message, about a movement that /v1/motions tokenized."""
    return await gateway.chat(chat)
