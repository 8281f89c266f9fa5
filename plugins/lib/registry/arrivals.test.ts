import { PassThrough } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { arrivals } from './arrivals.ts';

const never = { waiting: () => {}, came: () => {} };

test('all that has come, in order, and then the end', async (t) => {
  const body = new PassThrough({ highWaterMark: 1 << 20 });
  let [waits, bytes] = [0, 0];
  const iterator = arrivals(body, {
    waiting: () => {
      waits++;
    },
    came: (length) => {
      bytes += length;
    },
  });
  const first = iterator.next();
  for (const text of ['one', 'two', 'three']) body.write(text);
  t.deepEqual(
    (await first).value,
    ['one', 'two', 'three'].map((text) => Buffer.from(text)),
  );
  t.deepEqual([waits, bytes], [1, 11]);
  const second = iterator.next();
  body.end('four');
  t.deepEqual((await second).value, [Buffer.from('four')]);
  t.true((await iterator.next()).done);
});

test('who does not read does not gather more than a little', async (t) => {
  const body = new PassThrough({ highWaterMark: 64 << 10 });
  const iterator = arrivals(body, never);
  const piece = Buffer.alloc(64 << 10, 7);
  const first = iterator.next();
  body.write(piece);
  await first;
  let written = 0;
  while (written < 1000 && body.write(piece)) {
    written++;
    await turn();
  }
  t.true(written < 20, `${written} pieces`);
  let read = 0;
  body.end();
  for await (const chunks of iterator) for (const { length } of chunks) read += length;
  t.is(read, (written + 1) * piece.length);
});

test('chunks of a byte: no more at a time than may be handed on', async (t) => {
  const body = new PassThrough({ highWaterMark: 1 << 20 });
  const iterator = arrivals(body, never);
  const first = iterator.next();
  body.write('x');
  await first;
  for (let i = 0; i < 2000; i++) body.write('x');
  body.end();
  const lengths: number[] = [];
  for await (const chunks of iterator) lengths.push(chunks.length);
  t.is(
    lengths.reduce((sum, length) => sum + length),
    2000,
  );
  t.true(Math.max(...lengths) <= 256, lengths.join(' '));
});

test('what came before a failure is read, then it is thrown', async (t) => {
  const body = new PassThrough();
  const iterator = arrivals(body, never);
  const first = iterator.next();
  body.write('some');
  await turn();
  body.destroy(new Error('broken'));
  t.deepEqual((await first).value, [Buffer.from('some')]);
  await t.throwsAsync(iterator.next(), { message: 'broken' });
});

test('a body that ends without its end is a failure', async (t) => {
  const body = new PassThrough();
  const iterator = arrivals(body, never);
  const first = iterator.next();
  await turn();
  body.destroy();
  await t.throwsAsync(first, { code: 'ERR_STREAM_PREMATURE_CLOSE' });
});

test('who stops reading leaves nothing behind', async (t) => {
  const body = new PassThrough();
  const iterator = arrivals(body, never);
  const first = iterator.next();
  body.write('some');
  await first;
  await iterator.return();
  t.deepEqual([body.listenerCount('data'), body.listenerCount('error')], [0, 0]);
  body.destroy();
});
