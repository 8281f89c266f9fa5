import test from 'ava';
import { parse } from 'smol-toml';
import { lineOf, scanPositions } from './positions.ts';

const document = `# comment
title = "x" # [not.a.header]
'single' = 'it''s
"quoted \\"key\\" \\u00e9" = 1

[a.b]
c.d = """
[not] a = header
\\""" x
"""
e = [
  1, # one
  { f = 2, g.h = [ 3 ] },
  "]",
]
after = '''
'''''
date = 1979-05-27T07:32:00Z
[[list]]
n = 1
[list.sub]
m = 1
[[list]]
n = 2
[[list.inner]]
[[list.inner]]
z = 1
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.02
`.replace("'single' = 'it''s\n", "'single' = 'its'\n");

test('every key has its line', (t) => {
  t.notThrows(() => parse(document));
  const positions = scanPositions(document);
  const expected: [string[], number | undefined][] = [
    [['title'], 2],
    [['single'], 3],
    [['quoted "key" é'], 4],
    [['a'], 6],
    [['a', 'b'], 6],
    [['a', 'b', 'c', 'd'], 7],
    [['a', 'b', 'e'], 11],
    [['a', 'b', 'e', '0'], 12],
    [['a', 'b', 'e', '1', 'g', 'h'], 13],
    [['a', 'b', 'e', '2'], 14],
    [['a', 'b', 'after'], 16],
    [['a', 'b', 'date'], 18],
    [['list'], 19],
    [['list', '0', 'n'], 20],
    [['list', '0', 'sub', 'm'], 22],
    [['list', '1', 'n'], 24],
    [['list', '1', 'inner', '1', 'z'], 27],
    [['plugins', 'io.containerd.gc.v1.scheduler', 'pause_threshold'], 29],
    [['plugins', 'io.containerd.gc.v1.scheduler', 'unwritten'], 28],
    [['nowhere'], undefined],
    [['header'], undefined],
    [['not'], undefined],
  ];
  for (const [path, line] of expected) t.is(lineOf(positions, path), line, path.join(' '));
});

test('all keys of a document are found, whatever their form', (t) => {
  const paths = (value: unknown, path: string[] = []): string[][] =>
    typeof value !== 'object' || value === null || value instanceof Date
      ? [path]
      : [
          ...(path.length > 0 ? [path] : []),
          ...Object.entries(value).flatMap(([key, inner]) => paths(inner, [...path, key])),
        ];
  const positions = scanPositions(document);
  for (const path of paths(parse(document)).filter((p) => !/^\d+$/.test(p.at(-1)!)))
    t.true(positions.has(path.join('\0')), path.join(' '));
});

test('text that is no TOML is walked to its end', (t) => {
  for (const text of [
    '[',
    '[[',
    'a',
    'a =',
    'a = [',
    'a = {',
    '"',
    '"""',
    "'''",
    '= = =',
    ']',
    '[a.!b]',
    'a = {,',
    '%',
  ]) {
    t.notThrows(() => scanPositions(text), text);
  }
});
