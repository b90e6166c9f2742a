"""Count the words of Python's own reference manual by map-reduce.

The text is what `help("topics")` shows: it comes with Python, as `pydoc_data.topics`. Each map task counts one chunk
and splits its counts into as many parts as there are reducers; reducer r gets part r of every chunk, so each word has
one reducer. Prints `N words, M of them different, in T topics`, then the ten most frequent as `word count`, one a line,
the most frequent first and words of the same count by the alphabet.
"""

from __future__ import annotations

import re
from collections import Counter
from pydoc_data.topics import topics
from zlib import crc32

import redray

CHUNKS = 16
REDUCERS = 4


@redray.remote(num_returns=REDUCERS)
def count(texts: list[str]) -> list[Counter[str]]:
    """The map step: the counts of some texts, in one part per reducer."""
    parts: list[Counter[str]] = [Counter() for _ in range(REDUCERS)]
    for word, times in Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower())).items():
        # Not hash(): every process has a secret of its own in it and would send the word elsewhere.
        parts[crc32(word.encode()) % REDUCERS][word] = times
    return parts


@redray.remote
def merge(*parts: Counter[str]) -> Counter[str]:
    """The reduce step: one reducer's parts added up."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def main() -> None:
    """Map, shuffle, reduce, print."""
    redray.init(num_cpus=4)
    texts = list(topics.values())
    counted = [count.remote(texts[chunk::CHUNKS]) for chunk in range(CHUNKS)]
    merged = redray.get([merge.remote(*parts) for parts in zip(*counted, strict=True)])

    words = {word: times for part in merged for word, times in part.items()}
    print(f"{sum(words.values()):,} words, {len(words):,} of them different, in {len(texts)} topics")
    for word, times in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:10]:
        print(word, times)


if __name__ == "__main__":
    main()
