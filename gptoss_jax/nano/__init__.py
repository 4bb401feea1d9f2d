"""The built-in model: its corpus, its conversations, its training, its measurements, and talking with it."""
