"""Random conversations and random streams against openai-harmony 0.0.8, with both engines of the tokenizer."""

import json
import os
import random
from typing import Any

import harmony_cases as cases
import pytest

from gptoss_jax.harmony import (
    Conversation,
    Encoding,
    Message,
    RenderConversationConfig,
    Role,
    StreamableParser,
)

pytest_plugins = ["harmony_fixtures"]

SEED = int(os.environ.get("GPTOSS_JAX_SEED", "20261122"))
CONVERSATIONS = int(os.environ.get("GPTOSS_JAX_CONVERSATIONS", "2000"))


def outcome(call: Any, *arguments: Any) -> Any:
    """What a call gives: its value, or the words of its error."""
    try:
        return call(*arguments)
    except (RuntimeError, ValueError) as error:
        return str(error).split("Some(")[0]


@pytest.fixture(scope="session")
def rendered(official: Any) -> list[tuple[str, bool, list[Any], list[Any]]]:
    """Random conversations as JSON, whether analysis is dropped, and what the official library makes of them."""
    import openai_harmony as theirs

    out = []
    for seed in range(SEED, SEED + CONVERSATIONS):
        payload = json.dumps(cases.conversation(random.Random(seed)))
        other = theirs.Conversation.from_json(payload)
        drop = seed % 2 == 0
        config = theirs.RenderConversationConfig(auto_drop_analysis=drop)
        whole = [
            outcome(official.render_conversation, other, config),
            outcome(official.render_conversation_for_training, other, config),
            outcome(official.render_conversation_for_completion, other, theirs.Role.ASSISTANT, config),
        ]
        single = [outcome(official.render, message) for message in other] if seed % 4 == 0 else []
        out.append((payload, drop, whole, single))
    return out


def test_conversations_render_to_the_same_tokens(encoding: Encoding, rendered: Any) -> None:
    for payload, drop, whole, single in rendered:
        ours, config = Conversation.from_json(payload), RenderConversationConfig(drop)
        assert [
            outcome(encoding.render_conversation, ours, config),
            outcome(encoding.render_conversation_for_training, ours, config),
            outcome(encoding.render_conversation_for_completion, ours, Role.ASSISTANT, config),
        ] == whole, payload
        if single:
            assert [outcome(encoding.render, message) for message in ours] == single, payload


def test_json_forms_agree(official: Any) -> None:
    """Ours reads theirs and theirs reads ours; both then mean the same."""
    import openai_harmony as theirs

    for seed in range(SEED, SEED + 400):
        payload = json.dumps(cases.conversation(random.Random(seed)))
        ours, other = Conversation.from_json(payload), theirs.Conversation.from_json(payload)
        assert Conversation.from_json(ours.to_json()) == ours
        assert Conversation.from_json(other.to_json()) == Conversation.from_json(
            theirs.Conversation.from_json(other.to_json()).to_json()
        )
        again = theirs.Conversation.from_json(ours.to_json())
        assert outcome(official.render_conversation, again) == outcome(official.render_conversation, other)
        if "null" not in payload:
            assert ours.to_dict() == json.loads(other.to_json())


def test_parsing_gives_the_messages_back(encoding: Encoding, official: Any) -> None:
    """Well-formed streams: parsed messages are those rendered, strict and kind mode agree, nothing is repaired."""
    for seed in range(SEED, SEED + CONVERSATIONS // 4):
        rng = random.Random(seed)
        messages = [Message.from_dict(cases.readable_message(rng)) for _ in range(rng.randrange(6))]
        tokens = encoding.render_conversation(Conversation(messages), RenderConversationConfig(False))
        assert encoding.parse_messages_from_completion_tokens(tokens) == messages, seed
        kind = encoding.parse(tokens)
        assert (kind.messages, kind.repairs, kind.mended_tokens) == (messages, [], tokens), seed
        theirs = official.parse_messages_from_completion_tokens(tokens)
        assert [message.to_dict() for message in theirs] == [message.to_dict() for message in messages], seed


def snapshot(parser: Any) -> list[Any]:
    role = parser.current_role
    return [
        parser.state.value,
        parser.state_data,
        parser.current_content,
        role and role.value,
        parser.current_channel,
        parser.current_recipient,
        parser.current_content_type,
        parser.last_content_delta,
        parser.tokens,
        [message.to_dict() for message in parser.messages],
    ]


def test_strict_parser_agrees_after_every_token(encoding: Encoding, official: Any) -> None:
    """Good, damaged and random streams: all properties and all errors, also for what follows an error."""
    import openai_harmony as theirs

    for seed in range(SEED, SEED + 1500):
        rng = random.Random(seed)
        role = rng.choice([None, "assistant", "assistant", "user", "tool"])
        stream = cases.damaged_stream(rng, encoding) if seed % 2 else cases.random_stream(rng, encoding)
        stream = [token for token in stream if token >= 0 and token != 201088]  # the official one names 201088
        ours = StreamableParser(encoding, Role(role) if role else None)
        other = theirs.StreamableParser(official, theirs.Role(role) if role else None)
        for token in [*stream, None]:
            mine = outcome(ours.process, token) if token is not None else outcome(ours.process_eos)
            expected = outcome(other.process, token) if token is not None else outcome(other.process_eos)
            assert isinstance(mine, str) == isinstance(expected, str) and (mine == expected or mine is ours), seed
            assert snapshot(ours) == snapshot(other), seed
