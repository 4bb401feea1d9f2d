"""`Encoding`: a tokenizer that speaks Harmony, with the methods of openai-harmony's `HarmonyEncoding`."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from gptoss_jax.harmony import render
from gptoss_jax.harmony.forms import HarmonyError
from gptoss_jax.harmony.labels import TokenLabel, label_tokens
from gptoss_jax.harmony.messages import Conversation, Message, Role
from gptoss_jax.harmony.parse import StreamableParser
from gptoss_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class RenderConversationConfig:
    """Whether reasoning before the first answer is left out; see `render.drop_old_analysis`."""

    auto_drop_analysis: bool = True


@dataclasses.dataclass(frozen=True)
class RenderOptions:
    """For a single message: whether its conversation defines functions."""

    conversation_has_function_tools: bool = False


class Encoding:
    """Harmony over any tokenizer that has its control tokens; their ids are the tokenizer's own.

    >>> encoding = Encoding(Tokenizer.o200k_harmony())
    >>> encoding.render(Message.from_role_and_content(Role.USER, "Hi"))
    [200006, 1428, 200008, 12194, 200007]
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        names = (render.START, render.CHANNEL, render.CONSTRAIN, render.MESSAGE, render.END, render.CALL, render.RETURN)
        if missing := [name for name in names if name not in tokenizer.special_tokens]:
            raise HarmonyError(f"{tokenizer!r} cannot speak Harmony: it lacks {', '.join(missing)}")
        self.tokenizer = tokenizer
        self.control = {name: tokenizer.special_tokens[name] for name in names}
        self.name = tokenizer.name

    def __repr__(self) -> str:
        return f"Encoding({self.tokenizer!r})"

    # Rendering

    def render(self, message: Message, render_options: RenderOptions | None = None) -> list[int]:
        """Tokens of one message."""
        has_tools = render_options is not None and render_options.conversation_has_function_tools
        return [token for tokens, _ in self._tokens_and_parts(message, has_tools) for token in tokens]

    def render_conversation(
        self, conversation: Conversation, config: RenderConversationConfig | None = None
    ) -> list[int]:
        """Tokens of all messages, one behind the other with nothing in between.

        Args:
          config: by default reasoning that led to the first answer is left out, see `RenderConversationConfig`.
        """
        messages, has_tools = self._chosen(conversation, config)
        return [token for m in messages for tokens, _ in self._tokens_and_parts(m, has_tools) for token in tokens]

    def render_conversation_for_completion(
        self, conversation: Conversation, next_turn_role: Role, config: RenderConversationConfig | None = None
    ) -> list[int]:
        """The prompt: the conversation, then ``<|start|>`` and the role whose turn it is."""
        role = Role(next_turn_role).value
        prompt = self.render_conversation(conversation, config)
        return [*prompt, self.control[render.START], *self.tokenizer.encode_ordinary(role)]

    def render_conversation_for_training(
        self, conversation: Conversation, config: RenderConversationConfig | None = None
    ) -> list[int]:
        """As `render_conversation`, but a last answer ends in ``<|return|>``, which is what the model must learn."""
        return self.render_conversation_for_training_with_mask(conversation, config)[0]

    def render_conversation_for_training_with_mask(
        self,
        conversation: Conversation,
        config: RenderConversationConfig | None = None,
        *,
        train_on: Literal["all", "last_turn"] = "all",
    ) -> tuple[list[int], list[bool]]:
        """Training tokens, and for each token whether the model has to learn to write it.

        True are the tokens that the model itself would sample: from behind ``<|start|>assistant`` to the stop token,
        and that start as well where the message before was the assistant's too (reasoning, then an answer: the model
        goes on by itself; after ``<|call|>`` and ``<|return|>`` the program takes over). False is what it reads: other
        roles, the start of a turn, and the ``<|end|>`` of an earlier answer, where the model should have written
        ``<|return|>``.

        Args:
          config: as in `render_conversation`; pass ``RenderConversationConfig(auto_drop_analysis=False)`` to train on
            reasoning, since the default drops even that of a single question.
          train_on: "all" turns of the assistant, or the "last_turn", the messages after the last one of a user.

        Returns:
          Tokens and mask, of equal length.
        """
        if train_on not in ("all", "last_turn"):
            raise ValueError(f"train_on = {train_on!r}: choose 'all' or 'last_turn'")
        messages, has_tools = self._chosen(conversation, config)
        users = [i for i, message in enumerate(messages) if message.author.role is Role.USER]
        first = users[-1] + 1 if users and train_on == "last_turn" else 0
        ids: list[int] = []
        mask: list[bool] = []
        continues = False
        for i, message in enumerate(messages):
            learns = message.author.role is Role.ASSISTANT and i >= first
            for k, (tokens, part) in enumerate(self._tokens_and_parts(message, has_tools)):
                opening = k == 0 or part == "role"
                ids += tokens
                mask += [learns and (continues or not opening)] * len(tokens)
            is_answer = message.author.role is Role.ASSISTANT and message.channel == "final"
            if is_answer and i == len(messages) - 1:
                ids[-1] = self.control[render.RETURN]
            elif is_answer and message.recipient is None:
                mask[-1] = False
            continues = learns and message.recipient is None and not is_answer
        return ids, mask

    # Parsing

    def stop_tokens(self) -> list[int]:
        """Tokens that end a message."""
        return sorted(self.control[name] for name in (render.RETURN, render.END, render.CALL))

    def stop_tokens_for_assistant_actions(self) -> list[int]:
        """Tokens that end generation: the answer is complete, or a tool is called. ``<|end|>`` is not one of them."""
        return sorted(self.control[name] for name in (render.RETURN, render.CALL))

    def parse_messages_from_completion_tokens(
        self, tokens: Iterable[int], role: Role | None = None, *, strict: bool = True
    ) -> list[Message]:
        """Messages of a whole completion; `role` is who speaks if the tokens begin behind ``<|start|>role``.

        With ``strict=False`` anything is read; use `parse` to see what was mended.

        Raises:
          HarmonyError: in strict mode, for tokens that are not Harmony.
        """
        return self.parse(tokens, role, strict=strict).messages

    def parse(self, tokens: Iterable[int], role: Role | None = None, *, strict: bool = False) -> StreamableParser:
        """A parser that has read all tokens: its `messages`, and in kind mode (the default here) its `repairs`."""
        parser = StreamableParser(self, role, strict=strict)
        for token in tokens.tolist() if hasattr(tokens, "tolist") else tokens:
            parser.process(token)
        return parser.process_eos()

    def label_tokens(self, tokens: Iterable[int], role: Role | None = None) -> list[TokenLabel]:
        """Role, channel, recipient, part and message of every token, whatever the tokens are; see `labels`."""
        return label_tokens(self, tokens, role)

    # Tokens

    @property
    def special_tokens_set(self) -> set[str]:
        """Names of all special tokens."""
        return set(self.tokenizer.special_tokens)

    def is_special_token(self, token: int) -> bool:
        """Whether an id is a special token."""
        return self.tokenizer.is_special(token)

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | Collection[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """As `Tokenizer.encode`.

        Raises:
          HarmonyError: a disallowed special token in the text.
        """
        try:
            return self.tokenizer.encode(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
        except ValueError as error:
            raise HarmonyError(str(error)) from None

    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """As `Tokenizer.decode`.

        Raises:
          HarmonyError: an id that no token has.
        """
        try:
            return self.tokenizer.decode_bytes(tokens).decode("utf-8", errors)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise HarmonyError(str(error)) from None

    def decode_utf8(self, tokens: Sequence[int]) -> str:
        """Text of tokens that are complete characters.

        Raises:
          HarmonyError: an id that no token has, or bytes that are no UTF-8.
        """
        try:
            return self.decode(tokens, errors="strict")
        except UnicodeDecodeError as error:
            raise HarmonyError(f"Invalid utf-8 sequence: {error}") from None

    # Helpers

    def _chosen(
        self, conversation: Conversation, config: RenderConversationConfig | None
    ) -> tuple[list[Message], bool]:
        messages = list(conversation)
        has_tools = render.has_function_tools(messages)
        if config is None or config.auto_drop_analysis:
            messages = render.drop_old_analysis(messages)
        return messages, has_tools

    def _tokens_and_parts(self, message: Message, has_tools: bool) -> list[tuple[list[int], str]]:
        def tokens(piece: render.Piece) -> list[int]:
            special = piece.part == "special"
            return [self.control[piece.text]] if special else self.tokenizer.encode_ordinary(piece.text)

        return [(tokens(piece), piece.part) for piece in render.message_pieces(message, has_tools)]
