"""Text out of tokens as they arrive, and where sampling stops: one place for every exact policy.

The ids are the truth. Text is decoded from a short window of them, never across a half character; a stop string is looked for
after each token, so it ends the completion on a token boundary wherever in a token it is completed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from toolreason.errors import PolicyError
from toolreason.policies.base import Completion, Finish
from toolreason.tokens import CONTEXT, REPLACEMENT, Decode, text_after
from toolreason.types import Segment


def ids_of(segments: Sequence[Segment]) -> list[int]:
    """All ids of these segments, one after the other: what an exact engine is given."""
    return [token for segment in segments for token in segment.token_ids]


def prompt_ids(segments: Sequence[Segment]) -> list[int]:
    """`ids_of`, where there must be some. Raises PolicyError."""
    ids = ids_of(segments)
    if not ids:
        raise PolicyError("there is nothing to continue: the segments hold no token ids")
    return ids


def limit(prompt: int, max_tokens: int, context: int) -> tuple[int, Finish]:
    """How many tokens may be drawn after `prompt` tokens, and the finish where that many were drawn."""
    room = max(context - prompt, 0)
    return (room, Finish.CONTEXT) if room < max_tokens else (max(max_tokens, 0), Finish.LENGTH)


class StopWatch:
    """Finds the first stop string that is complete in a text that grows."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(s for s in stop if s)
        self._longest = max(map(len, self._stop), default=0)
        self._seen = 0

    def find(self, text: str) -> tuple[str, int] | None:
        """The stop string that ends first in `text` (the longest of equals) and where it ends, or None."""
        start = max(self._seen - self._longest + 1, 0)
        self._seen = len(text)
        found = [(at + len(s), -len(s), s) for s in self._stop if (at := text.find(s, start)) >= 0]
        if not found:
            return None
        end, _, string = min(found)
        return string, end


class TextStream:
    """One completion as it grows. `push` each token; when `finish` is set, `completion` is what was drawn.

    `before` are the prompt's ids. The pieces that `push` returns join to the completion's text, the end token's included.
    """

    def __init__(
        self,
        decode: Decode,
        before: Sequence[int],
        *,
        end_ids: Collection[int],
        stop: Sequence[str],
        max_tokens: int,
        context: int,
    ) -> None:
        self._decode = decode
        self._before = list(before[-CONTEXT:])
        self._end_ids = frozenset(end_ids)
        self._watch = StopWatch(stop)
        self.limit, self._limit_finish = limit(len(before), max_tokens, context)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.certainties: list[float] = []
        self.text = ""
        self.finish: Finish | None = None if self.limit else self._limit_finish
        self.stop: str | None = None
        self._window = [] if decode(self._before).endswith(REPLACEMENT) else list(self._before)
        self._known = len(self._window)  # tokens of the window whose text has been given out

    def push(self, token: int, logprob: float, certainty: float | None = None) -> str:
        """Take one more token; gives the text that is now certain. Sets `finish` when this token is the last."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if certainty is not None:
            self.certainties.append(certainty)
        self._window.append(token)
        new = self._new_text()
        self._decide(token, self.text + new.rstrip(REPLACEMENT))
        if self.finish is not None:
            return self.flush()
        if not new or new.endswith(REPLACEMENT):  # a character may be incomplete: wait
            return ""
        self._window, self._known = self._window[self._known :], len(self._window) - self._known
        self.text += new
        return new

    def completion(self) -> Completion:
        if self.finish is None:
            raise ValueError("the completion is not finished")
        certainties = tuple(self.certainties) if self.certainties else None
        return Completion(self.text, tuple(self.ids), tuple(self.logprobs), self.finish, self.stop, certainties)

    def _new_text(self) -> str:
        return self._decode(self._window)[len(self._decode(self._window[: self._known])) :]

    def _decide(self, token: int, visible: str) -> None:
        found = self._watch.find(visible)
        if token in self._end_ids:
            self.finish = Finish.END
        elif found is not None:
            self.finish, self.stop = Finish.STOP, found[0]
        elif len(self.ids) >= self.limit:
            self.finish = self._limit_finish

    def flush(self) -> str:
        """The text not given out yet, half characters as U+FFFD: `push` does it at the last token."""
        given, self.text = self.text, text_after(self._decode, self._before, self.ids)
        return self.text[len(given) :]
