"""The generator's conversations as Harmony, and Harmony as token ids with a loss mask: the package's own renderer."""

import os

from gptoss_jax.harmony import (
    Author,
    Conversation,
    DeveloperContent,
    Encoding,
    Message,
    ReasoningEffort,
    RenderConversationConfig,
    Role,
    SystemContent,
    ToolDescription,
)
from gptoss_jax.nano import dialogs
from gptoss_jax.tokenizer import Tokenizer

KEEP_ANALYSIS = RenderConversationConfig(auto_drop_analysis=False)
CALCULATOR = "functions.calc"


def system_message(effort: str) -> Message:
    """The short system message of the built-in model: ``Reasoning: high`` and nothing else."""
    short = SystemContent(model_identity=None, knowledge_cutoff=None, channel_config=None)
    content = short.with_reasoning_effort(ReasoningEffort(effort.capitalize()))
    return Message.from_role_and_content(Role.SYSTEM, content)


def developer_message() -> Message:
    """Offers the calculator."""
    schema = {"type": "object", "properties": {"expr": {"type": "string"}}, "required": ["expr"]}
    tool = ToolDescription("calc", "Evaluates arithmetic.", schema)
    return Message.from_role_and_content(Role.DEVELOPER, DeveloperContent().with_function_tools([tool]))


def tool_message(answer: str) -> Message:
    """What the calculator sends back."""
    author = Author(Role.TOOL, CALCULATOR)
    return Message.from_author_and_content(author, answer).with_recipient("assistant").with_channel("commentary")


def to_harmony(messages: tuple[dialogs.Message, ...]) -> Conversation:
    """Messages of the generator as a Harmony conversation."""
    return Conversation([_message(message) for message in messages])


def _message(message: dialogs.Message) -> Message:
    if message.role == CALCULATOR:
        return tool_message(message.text)
    out = Message.from_role_and_content(Role(message.role), message.text)
    out.channel, out.recipient = message.channel or None, message.recipient or None
    if message.recipient:
        out.content_type = "<|constrain|>json"
    return out


class Codec:
    """Ids of text and conversations.

    Args:
      tokenizer: the tokenizer, or the file or folder that holds it.
    """

    def __init__(self, tokenizer: Tokenizer | str | os.PathLike[str]):
        self.tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_file(tokenizer)
        self.encoding = Encoding(self.tokenizer)

    @property
    def padding(self) -> int:
        """The id that fills rows."""
        return self.tokenizer.special_tokens["<|endoftext|>"]

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text."""
        return self.tokenizer.encode_ordinary(text)

    def training(self, dialog: dialogs.Dialog) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and which of them the assistant writes in its last turn."""
        return self.encoding.render_conversation_for_training_with_mask(
            to_harmony(dialog.messages), KEEP_ANALYSIS, train_on="last_turn"
        )

    def prompt(self, messages: tuple[dialogs.Message, ...]) -> list[int]:
        """Ids of a conversation so far, up to the ``<|start|>assistant`` that asks for an answer."""
        return self.encoding.render_conversation_for_completion(to_harmony(messages), Role.ASSISTANT, KEEP_ANALYSIS)
