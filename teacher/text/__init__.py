"""Text to windows of token ids: tokenizers, chat templates, packing."""
