"""Tokenizers: the model's own, or a bare SentencePiece model, behind one protocol and with fingerprints.

Text is never read as control tokens: a document that contains the letters `<bos>` gets the ids of these letters, so no
text can end a document or open a chat turn, except with `parse_special`. (SentencePiece always works this way.) Packing
adds BOS and EOS. Saved with a student and loaded again, a tokenizer has the same fingerprints.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from logitcask.schemas.errors import TokenizerError
from logitcask.schemas.fingerprints import digest, fingerprint, vocabulary_fingerprint
from logitcask.schemas.format.metadata import TokenizerInfo
from logitcask.teacher.model.references import Resolved, resolve
from logitcask.teacher.text.chat import ChatText, chat_of_each_answer, mark_spans, whole_chat
from logitcask.teacher.text.chat_template import DEFAULT_DATE, ChatTemplate, Message, Rendered, find_chat_template
from logitcask.teacher.text.control_tokens import ControlTokens, looks_like_control
from logitcask.teacher.text.gguf_tokenizer import begins_with_bos, load_gguf_tokenizer
from logitcask.teacher.text.rules import TextRules

# Incremented whenever the same tokenizer files would give other ids.
_ALGORITHM_VERSION = 1
_SENTENCEPIECE_FILE = "tokenizer.model"
# Files that only the model's own tokenizer has; a .model next to them is one of its parts.
_OWN_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")

# How a vocabulary writes bytes: in GPT-2's alphabet, with SentencePiece's ▁ and <0x0A>, or unchanged.
PieceSpelling = Literal["byte-level", "sentencepiece", "plain"]


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def info(self) -> TokenizerInfo:
        """Name, fingerprints, size and control ids."""
        ...

    @property
    def spelling(self) -> PieceSpelling:
        """How `piece` writes bytes."""
        ...

    @property
    def asks_for_date(self) -> bool:
        """Whether the chat template asks for the date.

        Raises:
            TokenizerError: There is no chat template, or it is invalid or does not always render the same text.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS and EOS.

        Raises:
            TokenizerError: The text contains half a surrogate pair, which no Unicode encoding can express.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelled out."""
        ...

    def piece(self, token_id: int) -> str:
        """The vocabulary's spelling of an id."""
        ...

    def apply_chat(self, messages: Sequence[Message]) -> tuple[list[int], np.ndarray]:
        """Ids of a conversation, without BOS, and which of them the assistant wrote, bool [L].

        The token that ends the assistant's turn counts as the assistant's; what the template writes after it does not.

        Raises:
            RewrittenChatError: The template renders the first messages differently when more follow.
            TokenizerError: There is no chat template, or the template cannot render these messages.
        """
        ...

    def split_chat(self, messages: Sequence[Message]) -> list[tuple[list[int], np.ndarray]]:
        """As `apply_chat` for each answer of the assistant: the conversation up to it, and which ids are this answer's.

        Raises:
            TokenizerError: As for `apply_chat`.
        """
        ...

    def save(self, directory: str | Path) -> None:
        """Writes files from which `load_tokenizer(directory)` loads the same tokenizer."""
        ...


_CURRENT_RULES = TextRules(today=DEFAULT_DATE)


def load_tokenizer(reference: str | Path, rules: TextRules = _CURRENT_RULES) -> Tokenizer:
    """The tokenizer of a teacher or a student.

    Args:
        reference: A SentencePiece `.model` file, or what `teacher.model.references.resolve` accepts. A directory with
            only a `.model` is read by SentencePiece, any other by `transformers`.
        rules: Of the dataset.

    Raises:
        TeacherError: The reference does not exist.
        TokenizerError: There is no tokenizer, or it cannot be read without running its own code.
    """
    path = Path(reference).expanduser()
    if path.is_file() and path.suffix == ".model":
        return _load_sentencepiece(path, rules)
    resolved = resolve(reference)
    if resolved.kind == "directory" and not any((resolved.path / name).is_file() for name in _OWN_FILES):
        return _load_sentencepiece(_only_model_file(resolved), rules)
    return HuggingFaceTokenizer(resolved, rules)


class SentencePieceTokenizer:
    """A `.model` file, read by `sentencepiece`."""

    def __init__(self, path: str | Path) -> None:
        import sentencepiece

        self._bytes = Path(path).read_bytes()
        self._processor: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._bytes)
        except RuntimeError as e:
            raise TokenizerError(f"{path} is not a SentencePiece model: {e}") from e
        self._info = self._describe(Path(path))

    @property
    def info(self) -> TokenizerInfo:
        return self._info

    @property
    def spelling(self) -> PieceSpelling:
        return "sentencepiece"

    @property
    def asks_for_date(self) -> bool:
        return False

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(_checked(text))

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([int(token_id) for token_id in ids])

    def piece(self, token_id: int) -> str:
        return self._processor.id_to_piece(int(token_id))

    def apply_chat(self, messages: Sequence[Message]) -> tuple[list[int], np.ndarray]:
        raise TokenizerError(
            f"tokenizer {self.info.name!r} is a bare SentencePiece model without a chat template; name a directory "
            "with the model's own tokenizer, or give the conversations as plain text"
        )

    def split_chat(self, messages: Sequence[Message]) -> list[tuple[list[int], np.ndarray]]:
        return [self.apply_chat(messages)]

    def save(self, directory: str | Path) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / _SENTENCEPIECE_FILE).write_bytes(self._bytes)

    def _describe(self, path: Path) -> TokenizerInfo:
        size = self._processor.get_piece_size()
        pieces = {self._processor.id_to_piece(i): i for i in range(size)}
        bos_id, eos_id = _defined(self._processor.bos_id()), _defined(self._processor.eos_id())
        return TokenizerInfo(
            name=path.parent.resolve().name if path.name == _SENTENCEPIECE_FILE else path.name,
            fingerprint=fingerprint({"version": _ALGORITHM_VERSION, "sentencepiece": digest(self._bytes)}),
            vocabulary_fingerprint=vocabulary_fingerprint(pieces, {"bos": bos_id, "eos": eos_id}),
            vocab_size=size,
            bos_id=bos_id,
            eos_id=eos_id,
        )


class HuggingFaceTokenizer:
    """The model's own tokenizer, read by `transformers` from its directory or from GGUF."""

    def __init__(self, resolved: Resolved, rules: TextRules) -> None:
        self._rules = rules
        self._tokenizer = _load(resolved)
        self._pieces: dict[str, int] = self._tokenizer.get_vocab()
        self._info = self._describe(resolved)
        self._control_pieces = self._find_control_tokens()
        # Encoding leaves only tokens that are marked as special as text.
        marked = {token_id for token_id, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        self._needs_control_tokens = (
            rules.version > 1 and not rules.parse_special and marked < self._control_pieces.keys()
        )

    @property
    def info(self) -> TokenizerInfo:
        return self._info

    @property
    def spelling(self) -> PieceSpelling:
        decoder = str(json.loads(self._tokenizer.backend_tokenizer.to_str()).get("decoder"))
        if "'ByteLevel'" in decoder:
            return "byte-level"
        return "sentencepiece" if "▁" in decoder else "plain"

    @property
    def asks_for_date(self) -> bool:
        return self._template.asks_for_date

    def encode(self, text: str) -> list[int]:
        if self._needs_control_tokens:
            return self._control_tokens.encode(_checked(text))
        return self._encode(text, special_tokens_are_text=not self._rules.parse_special)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(
            [int(token_id) for token_id in ids],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )

    def piece(self, token_id: int) -> str:
        return self._tokenizer.convert_ids_to_tokens(int(token_id))

    def apply_chat(self, messages: Sequence[Message]) -> tuple[list[int], np.ndarray]:
        if self._rules.version == 1:
            return self._apply_chat_by_first_rules(messages)
        shielded = self._control_tokens.shield(messages)
        return self._encode_chat(whole_chat(self._render, shielded.messages), shielded.mark)

    def split_chat(self, messages: Sequence[Message]) -> list[tuple[list[int], np.ndarray]]:
        shielded = self._control_tokens.shield(messages)
        texts = chat_of_each_answer(self._render, shielded.messages)
        return [self._encode_chat(text, shielded.mark) for text in texts]

    def _encode_chat(self, chat: ChatText, mark: str) -> tuple[list[int], np.ndarray]:
        encoded = self._control_tokens.encode_rendered(_checked(chat.text), mark)
        controls = self._control_pieces.keys()
        is_assistant = mark_spans(chat.text, encoded.ids, encoded.starts, encoded.stops, chat.spans, controls)
        return self._without_bos(encoded.ids, is_assistant)

    def _apply_chat_by_first_rules(self, messages: Sequence[Message]) -> tuple[list[int], np.ndarray]:
        """As datasets that were begun with these rules continue: a token without characters is never marked."""
        chat = whole_chat(self._render, messages, is_complete=False)
        encoding = self._encode(chat.text, special_tokens_are_text=False, return_offsets_mapping=True)
        starts, stops = np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
        ids = encoding["input_ids"]
        starts = np.where(stops > starts, starts, -1)
        special = {token_id for token_id, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        return self._without_bos(ids, mark_spans(chat.text, ids, starts, stops, chat.spans, special))

    def _without_bos(self, ids: list[int], is_assistant: np.ndarray) -> tuple[list[int], np.ndarray]:
        if ids and ids[0] == self.info.bos_id:
            return ids[1:], is_assistant[1:]
        return ids, is_assistant

    def save(self, directory: str | Path) -> None:
        self._tokenizer.save_pretrained(directory)
        # Loaded again exactly as in tokenizer.json: a model's own class would rebuild its rules, and a student of
        # another architecture would get another class.
        path = Path(directory) / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if self._tokenizer.chat_template is None and self.info.chat_template is not None:
            template = json.dumps({"chat_template": self.info.chat_template}, ensure_ascii=False)
            (Path(directory) / "chat_template.json").write_text(template + "\n", encoding="utf-8")

    def _encode(self, text: str, *, special_tokens_are_text: bool, **options: Any) -> Mapping[str, Any]:
        return self._tokenizer(
            _checked(text),
            add_special_tokens=False,
            split_special_tokens=special_tokens_are_text,
            verbose=False,
            **options,
        )

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        return self._template.render(messages, add_generation_prompt=add_generation_prompt)

    @cached_property
    def _template(self) -> ChatTemplate:
        if self.info.chat_template is None:
            raise TokenizerError(
                f"tokenizer {self.info.name!r} has no chat template; annotate conversations with a teacher that was "
                "trained on them, or give plain text"
            )
        return ChatTemplate(self.info.chat_template, self._tokenizer.special_tokens_map, self._rules.today)

    @cached_property
    def _control_tokens(self) -> ControlTokens:
        return ControlTokens(
            self._tokenizer.backend_tokenizer, {} if self._rules.parse_special else self._control_pieces
        )

    def _find_control_tokens(self) -> dict[int, str]:
        added = self._tokenizer.added_tokens_decoder
        stated = set(getattr(self._tokenizer, "chat_control_tokens", None) or ())
        return {
            token_id: token.content
            for token_id, token in added.items()
            if token.special or token.content in stated or looks_like_control(token.content)
        }

    def _describe(self, resolved: Resolved) -> TokenizerInfo:
        tokenizer = self._tokenizer
        bos_id = tokenizer.bos_token_id if begins_with_bos(tokenizer) else None
        eos_id = tokenizer.eos_token_id
        stated = tokenizer.chat_template
        rules = {
            "version": _ALGORITHM_VERSION,
            "tokenizer.json": digest(tokenizer.backend_tokenizer.to_str().encode()),
            "bos": bos_id,
            "eos": eos_id,
            "chat_template": stated,
        }
        if self._rules.version == 1:
            template = stated if isinstance(stated, str) else None
        else:
            template = find_chat_template(stated, resolved.path if resolved.kind == "directory" else None)
        return TokenizerInfo(
            name=resolved.name,
            fingerprint=fingerprint(rules),
            vocabulary_fingerprint=vocabulary_fingerprint(self._pieces, {"bos": bos_id, "eos": eos_id}),
            vocab_size=max(self._pieces.values()) + 1,
            bos_id=bos_id,
            eos_id=eos_id,
            chat_template=template,
        )


def _load_sentencepiece(path: Path, rules: TextRules) -> SentencePieceTokenizer:
    if rules.parse_special:
        raise TokenizerError(
            f"{path}: a bare SentencePiece model never reads text as control tokens; leave out --parse-special, or "
            "name a directory with the model's own tokenizer"
        )
    return SentencePieceTokenizer(path)


def _load(resolved: Resolved) -> Any:
    try:
        if resolved.kind == "gguf":
            tokenizer = load_gguf_tokenizer(resolved.path)
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(resolved.path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as e:
        reason = str(e).partition("\n")[0]
        raise TokenizerError(
            f"transformers finds no usable tokenizer in {resolved.name!r}: {reason}. Put tokenizer.json or "
            "a SentencePiece tokenizer.model there, or name another tokenizer"
        ) from e
    if not getattr(tokenizer, "is_fast", False) or not tokenizer.get_vocab():
        raise TokenizerError(
            f"the tokenizer of {resolved.name!r} ({type(tokenizer).__name__}) has no tokenizer.json form; name its "
            "SentencePiece .model instead"
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    # Encoding sets it for each call; a value set here would be part of the fingerprint.
    backend.encode_special_tokens = False
    return tokenizer


def _only_model_file(resolved: Resolved) -> Path:
    models = sorted(resolved.path.glob("*.model"))
    if len(models) != 1:
        found = ", ".join(file.name for file in models) or "none"
        raise TokenizerError(
            f"{resolved.path} has no tokenizer: neither tokenizer.json nor a single SentencePiece .model ({found}); "
            "copy the tokenizer's files there, or name another tokenizer"
        )
    return models[0]


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise TokenizerError(f"the text is not Unicode: half a surrogate pair at character {e.start}") from e
    return text


def _defined(token_id: int) -> int | None:
    return token_id if token_id >= 0 else None
