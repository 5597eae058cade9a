#!/usr/bin/env python3
"""Count the lines of the program: what stands in src/, by room and in all.

Not counted: blank lines, comments, what is compiled for tests only (an item or a file below
`#[cfg(test)]`), and the load generator in src/bin/hekate-swarm. A line of a string counts.
"""

import pathlib
import re
import sys

SOURCE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else '.') / 'src'
NOT_COUNTED = SOURCE / 'bin'

RAW_STRING = re.compile(r'\bb?r(#*)"')
CHARACTER = re.compile(r"'(\\(x..|u\{[^}]*\}|.)|[^\\'\n])'")
TEST_ONLY = re.compile(r'#\[cfg\((?:test|(?:all|any)\(test[^\]]*)\)\]\s*')
MODULE = re.compile(r'(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;')


def blank_comments(text):
    """The text without comments, its strings filled with a letter: no brace of theirs is left."""
    out, at = [], 0
    while at < len(text):
        raw, character = RAW_STRING.match(text, at), CHARACTER.match(text, at)
        end = at + 1
        if text.startswith('//', at):
            end = text.find('\n', at)
            at = end = len(text) if end < 0 else end
        elif text.startswith('/*', at):
            depth, end = 1, at + 2
            while depth:
                step = {'/*': 1, '*/': -1}.get(text[end:end + 2], 0)
                depth += step
                end += 2 if step else 1
            out.append('\n' * text.count('\n', at, end))
            at = end
        elif raw:
            end = text.index('"' + raw[1], raw.end()) + 1 + len(raw[1])
        elif text[at] == '"':
            while text[end] != '"':
                end += 2 if text[end] == '\\' else 1
            end += 1
        elif character:
            end = character.end()
        out.append(text[at] if end == at + 1 else re.sub(r'[^\n]', 's', text[at:end]))
        at = end
    return ''.join(out)


def item_end(text):
    """Where the item that the text begins with ends: behind its braces, or at its semicolon."""
    depth = 0
    for at, character in enumerate(text):
        if character in '({[':
            depth += 1
        elif character in ')}]':
            depth -= 1
            if depth == 0 and character == '}':
                return at + 1
        elif character in ';,' and depth == 0:
            return at + 1
    return len(text)


def without_tests(path, text, test_files):
    """The text without items for tests only; files of such modules are added to `test_files`."""
    while found := TEST_ONLY.search(text):
        rest = text[found.end():]
        if module := MODULE.match(rest):
            room = path.parent if path.name in ('mod.rs', 'lib.rs', 'main.rs') else path.with_suffix('')
            test_files |= {room / f'{module[1]}.rs', room / module[1]}
            rest = rest[module.end():]
        else:
            rest = rest[item_end(rest):]
        text = text[:found.start()] + rest
    return text


def main():
    test_files, rooms = set(), {}
    texts = {
        path: without_tests(path, blank_comments(path.read_text()), test_files)
        for path in SOURCE.rglob('*.rs') if NOT_COUNTED not in path.parents
    }
    for path, text in texts.items():
        if not test_files & {path, *path.parents}:
            room = path.relative_to(SOURCE).parts[0].removesuffix('.rs')
            lines = sum(1 for line in text.splitlines() if line.strip())
            rooms[room] = rooms.get(room, 0) + lines
    for room, lines in sorted(rooms.items(), key=lambda entry: -entry[1]):
        print(f'{lines:7,} {room}')
    print(f'{sum(rooms.values()):7,} in all')


if __name__ == '__main__':
    main()
