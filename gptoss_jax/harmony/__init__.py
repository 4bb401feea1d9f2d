"""The Harmony format of gpt-oss: conversations as data, rendered to tokens and parsed back.

Names and JSON forms are those of openai-harmony, the official library.
"""

from gptoss_jax.harmony.content import (
    ChannelConfig,
    Content,
    DeveloperContent,
    ReasoningEffort,
    SystemContent,
    TextContent,
)
from gptoss_jax.harmony.encoding import Encoding, RenderConversationConfig, RenderOptions
from gptoss_jax.harmony.forms import FormError, HarmonyError
from gptoss_jax.harmony.labels import TokenLabel
from gptoss_jax.harmony.messages import Author, Conversation, Message, Role
from gptoss_jax.harmony.parse import StreamableParser, StreamState
from gptoss_jax.harmony.render import response_format
from gptoss_jax.harmony.repair import Repair
from gptoss_jax.harmony.tools import ToolDescription, ToolNamespaceConfig
from gptoss_jax.harmony.view import Transcript

__all__ = [
    "Author",
    "ChannelConfig",
    "Content",
    "Conversation",
    "DeveloperContent",
    "Encoding",
    "FormError",
    "HarmonyError",
    "Message",
    "ReasoningEffort",
    "RenderConversationConfig",
    "RenderOptions",
    "Repair",
    "Role",
    "StreamState",
    "StreamableParser",
    "SystemContent",
    "TextContent",
    "TokenLabel",
    "ToolDescription",
    "ToolNamespaceConfig",
    "Transcript",
    "response_format",
]
