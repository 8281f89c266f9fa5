import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { useScratch } from '../../test/helpers/scratch.ts';
import { processed, type StreamProcessor, stepsFor } from './processors.ts';

const layer = 'application/vnd.oci.image.layer.v1.tar';
const program = (accepts: string[], returns: string, script: string, env: string[] = []): StreamProcessor => ({
  accepts,
  returns,
  path: '/bin/sh',
  args: ['-c', script],
  env,
});

test('types lead from one program to the next until a layer comes out; the last of the config is asked first, each once', (t) => {
  const processors = {
    first: program(['x/a'], 'x/b', ''),
    round: program(['x/b'], 'x/a', ''),
    second: program(['x/b'], layer, ''),
    gzip: program(['x/c'], `${layer}+gzip`, ''),
  };
  const names = (type: string) => stepsFor(type, processors).steps.map(({ name }) => name);
  t.deepEqual(names('x/a'), ['first', 'second']);
  t.is(stepsFor('x/a', processors).returns, layer);
  t.deepEqual(names('x/c'), ['gzip']);
  t.is(stepsFor('x/c', processors).returns, `${layer}+gzip`);
  t.deepEqual(names(layer), []);
  t.deepEqual(stepsFor('x/a', { first: processors.first, round: processors.round }).steps.length, 2);
});

test('bytes go through, with the payload on descriptor 3, the media type and its own environment', async (t) => {
  const dir = useScratch(t, 'processors');
  const data = Buffer.alloc(300_000, 'layer');
  const source = join(dir, 'source');
  writeFileSync(source, gzipSync(data).toString('base64'));
  const processors = {
    decode: program(
      ['x/a'],
      'x/gzip',
      'cat <&3 > "$OUT/payload"; printf %s "$STREAM_PROCESSOR_MEDIATYPE" > "$OUT/type"; exec base64 -d',
      [`OUT=${dir}`],
    ),
    inflate: program(['x/gzip'], layer, 'exec gzip -dc'),
  };
  const { steps, returns } = stepsFor('x/a', processors);
  const payload = { typeUrl: 'test.Key', value: new Uint8Array([1, 2, 3]) };
  const file = join(dir, 'result');
  const signal = new AbortController().signal;
  const result = await processed(source, steps, returns, { decode: payload }, { spawn, file, maxBytes: 0, signal });
  t.is(result.digest, `sha256:${createHash('sha256').update(data).digest('hex')}`);
  t.is(result.size, data.length);
  t.deepEqual(readFileSync(file), data);
  t.deepEqual(Any.decode(new Uint8Array(readFileSync(join(dir, 'payload')))), payload);
  t.is(readFileSync(join(dir, 'type'), 'utf8'), 'x/a');
});

test('a program that fails, is not there, or gives too much is told by its name, and nothing is left', async (t) => {
  const dir = useScratch(t, 'processors');
  const source = join(dir, 'source');
  writeFileSync(source, Buffer.alloc(1_000_000));
  const file = join(dir, 'result');
  const signal = new AbortController().signal;
  const run = async (processor: StreamProcessor, maxBytes = 0) => {
    const { steps, returns } = stepsFor('x/a', { one: processor });
    return t.throwsAsync(processed(source, steps, returns, {}, { spawn, file, maxBytes, signal }));
  };
  const fails = await run(program(['x/a'], layer, 'echo no key >&2; exit 3'));
  t.is(fails?.message, 'stream processor "one" (/bin/sh): ended with 3: no key: failed precondition');
  const missing = await run({ ...program(['x/a'], layer, ''), path: '/nowhere/decoder' });
  t.regex(missing!.message, /^stream processor "one" \(\/nowhere\/decoder\): .*ENOENT/);
  await run(program(['x/a'], layer, 'exec cat'), 1000);
  t.false(existsSync(file));
});
