import test from 'ava';
import { Failure } from '../sdk/failure.ts';
import { MessageReader } from './message-reader.ts';
import { message } from './raw-peer.ts';

const sizes = [0, 1, 4, 5, 6, 100, 1023, 16_384, 16_385, 100_000, 1_000_000];

function all(reader: MessageReader): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (let next = reader.next(); next !== undefined; next = reader.next()) messages.push(next);
  return messages;
}

test('messages come out whole, however they are cut', (t) => {
  const payloads = sizes.map((size) => Buffer.alloc(size, size));
  const bytes = Buffer.concat(payloads.map((payload) => message(payload)));
  for (const cut of [1, 2, 3, 4, 5, 6, 7, 100, 16_384, 65_536, bytes.length]) {
    const reader = new MessageReader(1 << 20);
    const got: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += cut) {
      reader.push(bytes.subarray(at, at + cut));
      got.push(...all(reader));
    }
    t.is(got.length, payloads.length, String(cut));
    t.true(
      got.every((payload, at) => Buffer.compare(payload, payloads[at]!) === 0),
      String(cut),
    );
    t.false(reader.partial);
    t.is(reader.held, 0);
  }
});

test('what is held is what is allocated, and never ahead of what came by more than four times', (t) => {
  const reader = new MessageReader(16 << 20);
  reader.push(message(Buffer.alloc(0), 0, 16 << 20));
  t.is(reader.held, 16_384);
  t.true(reader.partial);
  for (let came = 0; came < 1 << 20; came += 1000) {
    reader.push(Buffer.alloc(1000));
    t.true(reader.held <= Math.max(16_384, 4 * (came + 1000)));
  }
});

test('a small message does not keep the buffer that it came in', (t) => {
  const reader = new MessageReader(1 << 20);
  const chunk = Buffer.allocUnsafeSlow(65_536);
  message(Buffer.from('small')).copy(chunk, 0);
  reader.push(chunk.subarray(0, 10));
  t.is(reader.next()?.buffer.byteLength, 5);
});

test('flags and lengths that are not allowed', (t) => {
  const code = (bytes: Buffer): string => {
    const failure = t.throws(() => new MessageReader(1000).push(bytes));
    return failure instanceof Failure ? failure.code : String(failure);
  };
  t.is(code(message(Buffer.alloc(0), 1)), 'Internal');
  t.is(code(message(Buffer.alloc(0), 2)), 'Internal');
  t.is(code(message(Buffer.alloc(0), 0, 1001)), 'ResourceExhausted');
  t.is(code(message(Buffer.alloc(0), 0, 2 ** 32 - 1)), 'ResourceExhausted');
});
