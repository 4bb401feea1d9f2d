"""Conversations as token ids with a loss weight for every token."""

import functools
import json
from pathlib import Path

import tiktoken

from gptoss_jax.nano.dialogs import Dialog, Message
from gptoss_jax.nano.vocabulary import byte_letters


class Codec:
    """Encodes text and conversations with a vocabulary file.

    Args:
      path: ``tokenizer.json``.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}

    @functools.cached_property
    def _encoding(self) -> tiktoken.Encoding:
        fields = json.loads(self.path.read_text(encoding="utf-8"))
        byte = {letter: value for value, letter in byte_letters().items()}
        ranks = {bytes(byte[c] for c in spelled): i for spelled, i in fields["model"]["vocab"].items()}
        special = {entry["content"]: entry["id"] for entry in fields["added_tokens"]}
        pattern = fields["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        return tiktoken.Encoding("nano", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: list[int]) -> str:
        return self._encoding.decode(ids)

    def special(self, name: str) -> int:
        return self._encoding._special_tokens[f"<|{name}|>"]

    @property
    def pad(self) -> int:
        return self.special("endoftext")

    def message(self, message: Message, end: str) -> tuple[list[int], int]:
        """Ids of one message, and how many of them form ``<|start|>role``."""
        ids = [self.special("start"), *self.encode(message.role)]
        head = len(ids)
        if message.recipient:
            ids += self.encode(f" to={message.recipient}")
        if message.channel:
            ids += [self.special("channel"), *self.encode(message.channel)]
        if message.role == "assistant" and message.recipient:
            ids += [*self.encode(" "), self.special("constrain"), *self.encode("json")]
        return [*ids, self.special("message"), *self.encode(message.text), self.special(end)], head

    def training(self, dialog: Dialog) -> tuple[list[int], list[int]]:
        """Ids, and 1 for every token that the assistant writes after the prompt, 0 for the others.

        The assistant goes on after its own analysis, so the next ``<|start|>assistant`` is its own work too; after a
        prompt or a tool's answer it is given.
        """
        ids: list[int] = []
        loss: list[int] = []
        own = False
        for i, message in enumerate(dialog.messages):
            last = i == len(dialog.messages) - 1
            call = message.role == "assistant" and bool(message.recipient)
            piece, head = self.message(message, "call" if call else "return" if last else "end")
            learned = i >= dialog.prompt and message.role == "assistant"
            ids += piece
            loss += [int(learned and own)] * head + [int(learned)] * (len(piece) - head)
            own = learned and not call
        return ids, loss

    def prompt(self, messages: tuple[Message, ...]) -> list[int]:
        """Ids of a conversation so far, up to the ``<|start|>assistant`` that asks for an answer."""
        ids: list[int] = []
        for message in messages:
            call = message.role == "assistant" and bool(message.recipient)
            ids += self.message(message, "call" if call else "end")[0]
        return [*ids, self.special("start"), *self.encode("assistant")]
