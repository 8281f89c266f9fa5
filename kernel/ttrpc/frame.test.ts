import test from 'ava';
import { encodeFrame, type Frame, FrameDecoder, headerBytes, maxBodyBytes } from './frame.ts';

function decode(decoder: FrameDecoder, bytes: Uint8Array, piece: number): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; at += piece) frames.push(...decoder.push(bytes.subarray(at, at + piece)));
  return frames;
}

for (const piece of [1, 3, 9, 10, 11, 4096, 1 << 20]) {
  test(`frames come out whole when the stream arrives in pieces of ${piece}`, (t) => {
    const bodies = [
      Buffer.alloc(0),
      Buffer.from('a'),
      Buffer.from('hello, shim'),
      Buffer.alloc(40_000, 7),
      Buffer.alloc(0),
    ];
    const bytes = Buffer.concat(bodies.map((body, index) => encodeFrame(2 * index + 1, 1 + (index % 3), index, body)));
    const decoder = new FrameDecoder();
    const frames = decode(decoder, bytes, piece);
    t.is(frames.length, bodies.length);
    for (const [index, frame] of frames.entries()) {
      t.deepEqual(Buffer.from(frame.body ?? []), bodies[index]);
      t.is(frame.streamId, 2 * index + 1);
      t.is(frame.type, 1 + (index % 3));
      t.is(frame.flags, index);
    }
    t.false(decoder.midFrame);
  });
}

test('the header is ten bytes, big endian', (t) => {
  t.deepEqual([...encodeFrame(0x01020304, 2, 4, Buffer.from([9, 9]))], [0, 0, 0, 2, 1, 2, 3, 4, 2, 4, 9, 9]);
});

test('a body of exactly the limit passes and one byte more is skipped, with the stream in step after it', (t) => {
  const limit = 1024;
  const decoder = new FrameDecoder(limit);
  const bytes = Buffer.concat([
    encodeFrame(1, 1, 0, Buffer.alloc(limit, 1)),
    encodeFrame(3, 1, 0, Buffer.alloc(limit + 1, 2)),
    encodeFrame(5, 1, 0, Buffer.from('after')),
  ]);
  const frames = decode(decoder, bytes, 100);
  t.is(frames[0]?.body?.length, limit);
  t.is(frames[1]?.body, undefined);
  t.is(frames[1]?.bodyBytes, limit + 1);
  t.is(frames[1]?.streamId, 3);
  t.is(Buffer.from(frames[2]?.body ?? []).toString(), 'after');
});

test('a header that announces 4 GiB costs no memory and yields nothing until the bytes came', (t) => {
  const decoder = new FrameDecoder();
  const header = Buffer.alloc(headerBytes, 0xff);
  const before = process.memoryUsage().arrayBuffers;
  t.deepEqual([...decoder.push(header)], []);
  for (let round = 0; round < 64; round++) t.deepEqual([...decoder.push(Buffer.alloc(1 << 20))], []);
  t.true(decoder.midFrame);
  global.gc?.();
  t.true(process.memoryUsage().arrayBuffers - before < 200 << 20);
});

test('a body that trickles in is held once, not once per byte', (t) => {
  const decoder = new FrameDecoder();
  const bytes = encodeFrame(1, 2, 0, Buffer.alloc(200_000, 5));
  const frames = decode(decoder, bytes, 1);
  t.is(frames.length, 1);
  t.true((frames[0]?.body ?? []).every((byte) => byte === 5));
});

test('a header cut at each byte is mid-frame', (t) => {
  for (let cut = 1; cut < headerBytes; cut++) {
    const decoder = new FrameDecoder();
    t.deepEqual([...decoder.push(Buffer.alloc(cut))], []);
    t.true(decoder.midFrame);
  }
});

test('the limit is the one of Go', (t) => t.is(maxBodyBytes, 4_194_304));
