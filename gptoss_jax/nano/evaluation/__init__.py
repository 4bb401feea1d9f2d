"""Measurements of a small gpt-oss: held-out text, answers, experts. They run on any checkpoint with a tokenizer."""
