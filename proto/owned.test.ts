/** Memory of messages, let go of. */
import test from 'ava';
import { Data } from './gen/containerd/types/transfer/stream.ts';
import { own, release } from './owned.ts';

const large = (): Buffer => Buffer.alloc(200_000, 7);

test('a large message is freed whole, whichever part of it is let go of', (t) => {
  const message = own(Buffer.allocUnsafeSlow(200_000));
  const part = message.subarray(10, 20);
  release(part);
  t.is(message.buffer.byteLength, 0);
  t.is(part.length, 0);
  t.notThrows(() => release(part));
});

test('memory that is not known to hold one message only stays as it is', (t) => {
  const shared = large();
  release(shared.subarray(0, 100_000));
  t.is(shared[150_000], 7);
  const small = own(Buffer.alloc(1000, 7));
  release(small);
  t.is(small[999], 7);
  const across = new Uint8Array(new SharedArrayBuffer(200_000));
  release(own(across));
  t.is(across.length, 200_000);
});

test('what a codec has written is its own, and what it was made of is not', (t) => {
  const data = large();
  const bytes = Data.encode({ data }).finish();
  const again = Data.decode(bytes);
  t.deepEqual(Buffer.from(again.data), data);
  release(again.data);
  t.is(bytes.length, 0);
  t.is(data[199_999], 7);
});

test('small messages, which share a buffer of the process, are let be', (t) => {
  const all = Array.from({ length: 50 }, (_, i) => Data.encode({ data: Buffer.alloc(300, i) }).finish());
  for (const bytes of all.slice(1)) release(bytes);
  t.deepEqual(Buffer.from(Data.decode(all[1]!).data), Buffer.alloc(300, 1));
});
