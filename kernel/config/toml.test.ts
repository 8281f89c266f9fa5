import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { ProblemsError } from './problem.ts';
import { maxFileBytes, parseToml, readToml } from './toml.ts';

function scratch(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'toml-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  return dir;
}

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof ProblemsError) return error.message;
    throw error;
  }
  return '';
}

test('a syntax error has file, line and column', (t) => {
  t.regex(
    refusal(() => parseToml('a = 1\nb = \n', '/etc/x.toml')),
    /^\/etc\/x\.toml:2:\d+: /,
  );
  t.regex(
    refusal(() => parseToml('a = 1\na = 2\n', 'x')),
    /^x:2:1: .*redefine/,
  );
  t.regex(
    refusal(() => parseToml('a = "\0"\n', 'x')),
    /^x:1:\d+: control characters/,
  );
});

test('__proto__ and constructor are keys like any other and reach no prototype', (t) => {
  const { table, locate } = parseToml(
    '__proto__ = { polluted = 1 }\n[constructor.prototype]\npolluted = 2\n[a.__proto__]\npolluted = 3\n',
    'x',
  );
  t.deepEqual(Object.keys(table), ['__proto__', 'constructor', 'a']);
  t.is(Object.getPrototypeOf(table), null);
  t.is(({} as { polluted?: number }).polluted, undefined);
  t.is(locate(['a', '__proto__', 'polluted'])?.line, 5);
});

test('byte order mark and CRLF are fine, bytes that are no UTF-8 are not', (t) => {
  const dir = scratch(t);
  const file = join(dir, 'x.toml');
  writeFileSync(file, '\ufeffa = 1\r\n[b]\r\nc = "d"\r\n');
  const { table, locate } = readToml(file);
  t.is(table.a, 1n);
  t.is(locate(['b', 'c'])?.line, 3);
  writeFileSync(file, Buffer.concat([Buffer.from('a = 1\nb = "'), Buffer.from([0xc3, 0x28]), Buffer.from('"\n')]));
  t.is(
    refusal(() => readToml(file)),
    `${file}:2: not valid UTF-8`,
  );
});

test('depth and size are bounded', (t) => {
  const dir = scratch(t);
  const file = join(dir, 'x.toml');
  t.regex(
    refusal(() => parseToml(`a = ${'['.repeat(100_000)}`, 'x')),
    /^x/,
  );
  t.regex(
    refusal(() => parseToml(`a = ${'{a='.repeat(500)}1${'}'.repeat(500)}`, 'x')),
    /^x/,
  );
  t.is(
    refusal(() => parseToml(`${'a.'.repeat(65)}a = 1`, 'x')),
    'x: tables nested deeper than 64',
  );
  t.is(
    refusal(() => parseToml(`[${'a.'.repeat(50_000)}a]`, 'x')),
    'x: tables nested deeper than 64',
  );
  writeFileSync(file, `#${'x'.repeat(maxFileBytes)}`);
  t.is(
    refusal(() => readToml(file)),
    `${file}: ${maxFileBytes + 1} bytes, the limit is ${maxFileBytes}`,
  );
  writeFileSync(file, `a = [${'1,'.repeat(500_000)}]`);
  t.is((readToml(file).table.a as unknown[]).length, 500_000);
});

test('only regular files are read: no directory, FIFO, device or socket, also behind a link', (t) => {
  const dir = scratch(t);
  const fifo = join(dir, 'fifo');
  t.is(spawnSync('mkfifo', [fifo]).status, 0);
  mkdirSync(join(dir, 'd'));
  symlinkSync('/dev/zero', join(dir, 'zero'));
  symlinkSync('loop', join(dir, 'loop'));
  for (const name of ['fifo', 'd', 'zero']) {
    t.is(
      refusal(() => readToml(join(dir, name))),
      `${join(dir, name)}: not a regular file`,
    );
  }
  t.is(
    refusal(() => readToml(join(dir, 'absent'))),
    `${join(dir, 'absent')}: cannot be opened: no such file`,
  );
  t.is(
    refusal(() => readToml(join(dir, 'loop'))),
    `${join(dir, 'loop')}: cannot be opened: too many symbolic links`,
  );
});

test('integers are exact to 64 bits and refused beyond', (t) => {
  t.is(parseToml('a = 9223372036854775807', 'x').table.a, 9223372036854775807n);
  t.is(parseToml('a = 0x10', 'x').table.a, 16n);
  t.is(parseToml('a = -0', 'x').table.a, 0n);
  for (const beyond of ['9223372036854775808', '-9223372036854775809', '0x8000000000000000', '1'.repeat(1000)]) {
    for (const [text, key] of [
      [`a = 1\nb = ${beyond}\n`, 'b'],
      [`[t]\nb.c = ${beyond}\n`, 't.b.c'],
      [`\nb = [1, [${beyond}]]\n`, 'b'],
      [`\nb = [{ c = ${beyond} }]\n`, 'b.c'],
    ] as const)
      t.is(
        refusal(() => parseToml(text, 'x')),
        `x:2: ${key} is an integer of more than 64 bits`,
      );
  }
});
