import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import zlib from 'node:zlib';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { eventually } from '../../../test/helpers/eventually.ts';
import { compress } from './compress.ts';
import { decompress } from './decompress.ts';
import { detectCompression } from './format.ts';

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Buffer, size = 1 << 20): Promise<Buffer> {
  const { bytes: plain } = await decompress(pieces(bytes, size), 'layer x');
  const parts: Uint8Array[] = [];
  for await (const part of plain) parts.push(part);
  return Buffer.concat(parts);
}

const text = Buffer.from('a layer, more or less. '.repeat(200_000));
const skippable = Buffer.concat([Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), Buffer.from('skip')]);
const gz = (bytes: Buffer): Buffer => zlib.gzipSync(bytes);
const zst = (bytes: Buffer): Buffer => zlib.zstdCompressSync(bytes);

/** A member with every optional field of RFC 1952. */
function decorated(bytes: Buffer): Buffer {
  const header = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 0x1c, 0, 0, 0, 0, 0, 255]),
    Buffer.from([0xff, 0xff]),
    Buffer.alloc(0xffff, 7),
    Buffer.from('a name that goes on '.repeat(1000)),
    Buffer.from([0]),
    Buffer.from('a comment\0'),
  ]);
  return Buffer.concat([header, gz(bytes).subarray(10)]);
}

for (const size of [1 << 20, 977, 1]) {
  const body = size === 1 ? text.subarray(0, 5000) : text;
  const cases: Record<string, [Buffer, Buffer]> = {
    'no compression': [body, body],
    'nothing at all': [Buffer.alloc(0), Buffer.alloc(0)],
    gzip: [gz(body), body],
    'gzip members joined': [Buffer.concat([gz(body), gz(Buffer.alloc(0)), gz(body)]), Buffer.concat([body, body])],
    'gzip with extra fields': [decorated(body), body],
    zstd: [zst(body), body],
    'zstd frames joined, skippable ones skipped': [
      Buffer.concat([skippable, zst(body), skippable, zst(body), skippable]),
      Buffer.concat([body, body]),
    ],
  };
  for (const [name, [input, output]] of Object.entries(cases)) {
    test(`${name}, ${size} bytes at a time`, async (t) => {
      t.deepEqual((await read(input, size)).compare(output), 0);
    });
  }
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at < 0 ? copy.length + at : at]! ^= 0xff;
  return copy;
}

/** A frame header that asks for a window of 2 GiB (RFC 8878, 3.1.1.1.2): descriptor 0, exponent 21. */
const hugeWindow = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00]);
const member = gz(text);
const frame = zst(text);
const refused: Record<string, [Buffer, RegExp]> = {
  'gzip header only': [member.subarray(0, 10), /gzip: unexpected end of file/],
  'gzip cut off': [member.subarray(0, -5), /gzip: unexpected end of file/],
  'gzip with a wrong CRC': [flipped(member, -8), /gzip: incorrect data check/],
  'gzip with a wrong ISIZE': [flipped(member, -1), /gzip: incorrect length check/],
  'gzip, then garbage': [Buffer.concat([member, Buffer.from('garbage')]), /gzip/],
  'gzip, then zeros': [Buffer.concat([member, Buffer.alloc(512)]), /gzip: trailing data/],
  'gzip, then half a magic': [Buffer.concat([member, Buffer.from([0x1f])]), /gzip/],
  'zstd cut off': [frame.subarray(0, -3), /zstd: unexpected end of file/],
  'zstd, then garbage': [Buffer.concat([frame, Buffer.from('garbage!')]), /zstd/],
  'zstd with a window of 2 GiB': [hugeWindow, /zstd: window is larger than 128 MiB/],
  xz: [Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4, 0xe6, 0xd6]), /compression xz is not supported/],
  bzip2: [Buffer.from('BZh91AY&SYabcdef'), /compression bzip2 is not supported/],
};
for (const [name, [input, message]] of Object.entries(refused)) {
  for (const size of [1 << 20, 3]) {
    test(`refused: ${name}, ${size} bytes at a time`, async (t) => {
      const failure = await t.throwsAsync(read(input, size === 3 && input.length > 10_000 ? 1000 : size), {
        instanceOf: Failure,
        message,
      });
      t.is((failure as Failure).code, 'InvalidArgument');
      t.regex((failure as Failure).message, /^layer x: .*: invalid argument$/);
    });
  }
}

test('a failing source fails the stream with its own error', async (t) => {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield member.subarray(0, 100);
    throw new Error('disk on fire');
  }
  const { bytes } = await decompress(source(), 'layer x');
  await t.throwsAsync(
    async () => {
      for await (const _ of bytes);
    },
    { message: 'disk on fire' },
  );
});

const noise = randomBytes(1 << 20);
for (const [name, piece] of [
  ['no compression', noise],
  ['gzip', gz(noise)],
  ['zstd', zst(noise)],
] as const) {
  test(`a consumer that stops early closes the source, of which little was read ahead: ${name}`, async (t) => {
    let given = 0;
    let closed = false;
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) {
          given += piece.length;
          yield piece;
        }
      } finally {
        closed = true;
      }
    }
    for await (const part of (await decompress(source(), 'layer x')).bytes) {
      t.true(Buffer.from(part).equals(noise.subarray(0, part.length)));
      break;
    }
    await eventually(t, 'the source is closed', () => closed, 10_000);
    // Four chunks lie ready on either side of the engine, and one more is on its way to each.
    t.true(given <= 11 << 20, `${given} bytes`);
  });
}

async function packed(bytes: Buffer, compression: 'none' | 'gzip' | 'zstd', pieceSize = 100_000): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of compress(pieces(bytes, pieceSize), compression)) parts.push(part);
  return Buffer.concat(parts);
}

for (const compression of ['none', 'gzip', 'zstd'] as const) {
  test(`compress ${compression}: read back, recognised and the same each time, in whatever pieces it came`, async (t) => {
    for (const length of [0, 1, 1 << 19, (1 << 19) + 1, 4 << 20, text.length]) {
      const bytes = text.subarray(0, length);
      const made = await packed(bytes, compression);
      if (length > 0) t.is(detectCompression(made), compression);
      t.true((await packed(bytes, compression, 77_777)).equals(made), `${length} bytes`);
      t.true((await read(made)).equals(bytes), `${length} bytes`);
    }
  });
}

test('what is compressed in blocks is for other readers too, and hardly larger', async (t) => {
  const made = await packed(text, 'gzip');
  t.true(execFileSync('gzip', ['-dc'], { input: made, maxBuffer: 1 << 30 }).equals(text));
  const bytes = readFileSync(process.execPath).subarray(0, 20 << 20);
  t.true((await packed(bytes, 'gzip')).length < 1.01 * zlib.gzipSync(bytes).length);
  t.true((await packed(bytes, 'zstd')).length < 1.03 * zlib.zstdCompressSync(bytes).length);
});

test('compress: a source that fails, a reader that stops', async (t) => {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield text;
    throw new Error('disk on fire');
  }
  for (const compression of ['gzip', 'zstd'] as const) {
    await t.throwsAsync(
      async () => {
        for await (const _ of compress(source(), compression));
      },
      { message: 'disk on fire' },
    );
    for await (const _ of compress(pieces(text, 100_000), compression)) break;
  }
});
