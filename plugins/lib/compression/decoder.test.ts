/** The libraries against node:zlib: the same bytes, or the same words. */
import { createHash } from 'node:crypto';
import zlib from 'node:zlib';
import { dataFailure } from './corrupt.ts';
import { decoderFor, decoderMemory, hasDecoder, stateBytes } from './decoder.ts';
import { decompress } from './decompress.ts';
import { regionOf } from './memory.ts';
import { unlessLacking } from '../../../test/helpers/privilege.ts';

type Format = 'gzip' | 'zstd';

async function byNode(bytes: Buffer): Promise<Buffer> {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes;
  }
  const parts: Uint8Array[] = [];
  for await (const part of (await decompress(source(), 'layer x')).bytes) parts.push(part);
  return Buffer.concat(parts);
}

/** Pieces of `inSize` into room of `outSize`; every `handOver` pieces a new decoder goes on with the memory and the state of the last. */
function byLibrary(format: Format, bytes: Buffer, inSize: number, outSize: number, handOver = 0): Buffer {
  const at = stateBytes(format);
  const memory = decoderMemory(format, new SharedArrayBuffer(at + inSize + outSize));
  const [input, output] = [regionOf(memory, at, inSize), regionOf(memory, at + inSize, outSize)];
  let decoder = decoderFor(format, memory);
  const parts: Buffer[] = [];
  let pieces = 0;
  try {
    for (let from = 0; from < bytes.length; from += inSize) {
      const piece = bytes.subarray(from, from + inSize);
      piece.copy(input.bytes);
      const given = { ...input, length: piece.length, bytes: input.bytes.subarray(0, piece.length) };
      for (let taken = 0; ; ) {
        decoder.decode(given, taken, output, 0);
        taken += decoder.taken;
        parts.push(Buffer.from(output.bytes.subarray(0, decoder.made)));
        if (taken === piece.length && decoder.made < output.length) break;
      }
      const { state } = decoder;
      if (handOver > 0 && ++pieces % handOver === 0 && state !== undefined) decoder = decoderFor(format, memory, state);
    }
    decoder.finish();
    return Buffer.concat(parts);
  } catch (error) {
    throw dataFailure(error, 'layer x', format);
  } finally {
    decoder.free?.();
  }
}

async function outcome(work: () => Buffer | Promise<Buffer>): Promise<string> {
  try {
    const bytes = await work();
    return `${bytes.length} bytes ${createHash('sha256').update(bytes).digest('hex')}`;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Repeatable bytes: compressible, with runs longer than a window and parts that do not compress. */
function sample(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let at = 0; at < length; ) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    const run = 1 + ((state >>> 8) % 3000);
    const kind = state % 4;
    for (let i = at; i < Math.min(at + run, length); i++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      bytes[i] =
        kind === 0
          ? state >>> 24
          : kind === 1
            ? 32
            : kind === 2 && i > 40_000
              ? bytes[i - 32_768]!
              : 97 + (state >>> 28);
    }
    at += run;
  }
  return bytes;
}

const large = sample(700_000, 1);
const small = sample(3000, 2);
const header = (flags: number, more: Buffer): Buffer =>
  Buffer.concat([Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3]), more]);
const member = zlib.gzipSync(large);
const body = zlib.gzipSync(small).subarray(10);
const withCrc = (wrong: number): Buffer => {
  const head = header(2 | 8, Buffer.from('name\0'));
  const crc = Buffer.alloc(2);
  crc.writeUInt16LE(((zlib.crc32(head) & 0xffff) + wrong) & 0xffff);
  return Buffer.concat([head, crc, body]);
};
const flipped = (bytes: Buffer, at: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy[at < 0 ? copy.length + at : at]! ^= 0xff;
  return copy;
};
const frame = zlib.zstdCompressSync(large, { params: { [zlib.constants.ZSTD_c_checksumFlag]: 1 } });
const windowed = (bytes: Buffer, windowLog: number): Buffer =>
  zlib.zstdCompressSync(bytes, { params: { [zlib.constants.ZSTD_c_windowLog]: windowLog } });
const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 115, 107, 105, 112]);

const cases: Record<Format, Record<string, Buffer>> = {
  gzip: {
    'one member': member,
    'stored blocks': zlib.gzipSync(large, { level: 0 }),
    'fixed codes': zlib.gzipSync(large, { strategy: zlib.constants.Z_FIXED }),
    'an empty member': zlib.gzipSync(Buffer.alloc(0)),
    'members joined': Buffer.concat([member, zlib.gzipSync(Buffer.alloc(0)), zlib.gzipSync(small), member]),
    'many small members': Buffer.concat(Array.from({ length: 300 }, (_, i) => zlib.gzipSync(sample(i, i + 1)))),
    'extra field': Buffer.concat([header(4, Buffer.concat([Buffer.from([3, 0]), Buffer.from('abc')])), body]),
    'empty extra field': Buffer.concat([header(4, Buffer.from([0, 0])), body]),
    'name and comment': Buffer.concat([header(8 | 16, Buffer.from('a name\0a comment\0')), body]),
    'header with its own CRC': withCrc(0),
    'header with a wrong CRC': withCrc(1),
    'flags from the future': Buffer.concat([header(0x20, Buffer.alloc(0)), body]),
    'a method that is not deflate': Buffer.concat([member, Buffer.from([0x1f, 0x8b, 7]), body]),
    'header only': member.subarray(0, 10),
    'cut off in the data': member.subarray(0, -1000),
    'cut off in front of the trailer': member.subarray(0, -8),
    'cut off in the trailer': member.subarray(0, -3),
    'a wrong CRC': flipped(member, -8),
    'a wrong length': flipped(member, -1),
    'then garbage': Buffer.concat([member, Buffer.from('garbage')]),
    'then zeros': Buffer.concat([member, Buffer.alloc(512)]),
    'then half a magic': Buffer.concat([member, Buffer.from([0x1f])]),
    'then a wrong magic': Buffer.concat([member, Buffer.from([0x1f, 0x8c, 1])]),
    'a block of the reserved type': header(0, Buffer.from([0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    'a stored block whose lengths differ': header(0, Buffer.from([0x01, 5, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0])),
    'a distance beyond the beginning': header(0, Buffer.from([0x63, 0x00, 0x02, 0x00, 0, 0, 0, 0, 0, 0, 0, 0])),
  },
  zstd: {
    'one frame': frame,
    'no compression to be had': zlib.zstdCompressSync(zlib.gzipSync(large)),
    'frames joined, skippable ones skipped': Buffer.concat([
      skippable,
      frame,
      skippable,
      zlib.zstdCompressSync(small),
      skippable,
    ]),
    'skippable frames only': Buffer.concat([skippable, skippable]),
    'ten thousand skippable frames': Buffer.concat([...Array.from({ length: 10_000 }, () => skippable), frame]),
    'larger than its window': windowed(sample(3_000_000, 3), 17),
    'windows of every kind': Buffer.concat(
      [24, 10, 21, 27, 17].map((log, i) => windowed(sample(200_000 + (i % 2) * 1_900_000, i), log)),
    ),
    'stored blocks, runs, nothing': Buffer.concat(
      [zlib.gzipSync(large), Buffer.alloc(1_000_000), Buffer.alloc(0), small].map((bytes) =>
        zlib.zstdCompressSync(bytes),
      ),
    ),
    'a skippable frame of nothing': Buffer.concat([Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]), frame]),
    'a skippable frame, cut off': Buffer.concat([frame, skippable.subarray(0, -1)]),
    'then a wrong magic': Buffer.concat([frame, Buffer.from([0x28, 0xb4])]),
    'the header only': frame.subarray(0, 5),
    'cut off': frame.subarray(0, -3),
    'a wrong checksum': flipped(frame, -1),
    'then garbage': Buffer.concat([frame, Buffer.from('garbage!')]),
    'a window of 2 GiB': Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00]),
    'a dictionary that nobody has': Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x58, 7, 0x01, 0x00, 0x00]),
  },
};

for (const format of ['gzip', 'zstd'] as const) {
  const here = unlessLacking(() => (hasDecoder(format, 'auto') ? undefined : 'ISA-L (Debian: libisal2)'));
  for (const [name, bytes] of Object.entries(cases[format])) {
    here(`${format}, ${name}: as node:zlib`, async (t) => {
      const expected = await outcome(() => byNode(bytes));
      const sizes = [
        [1 << 20, 1 << 20],
        [4096, 70_000],
        [1000, 999],
      ];
      if (bytes.length < 5000) sizes.push([1, 1 << 16], [7, 3], [1, 1]);
      for (const [inSize, outSize] of sizes)
        t.is(
          await outcome(() => byLibrary(format, bytes, inSize!, outSize!)),
          expected,
          `${inSize} in, ${outSize} out`,
        );
      t.is(await outcome(() => byLibrary(format, bytes, 5000, 4000, 3)), expected, 'from hand to hand');
    });
  }

  here(`${format}, damaged anywhere: refused by both, or the same bytes`, async (t) => {
    const whole =
      format === 'gzip'
        ? zlib.gzipSync(small)
        : zlib.zstdCompressSync(small, { params: { [zlib.constants.ZSTD_c_checksumFlag]: 1 } });
    for (let at = 0; at < whole.length; at++) {
      const bytes = flipped(whole, at);
      // What is not recognised any more is read as it is.
      if (at < 4) continue;
      const [node, library] = [
        await outcome(() => byNode(bytes)),
        await outcome(() => byLibrary(format, bytes, 512, 512)),
      ];
      if (/^\d+ bytes/.test(node) || /^\d+ bytes/.test(library)) t.is(library, node, `byte ${at}`);
      else t.regex(library, /^layer x: (gzip|zstd): .*: invalid argument$/);
    }
  });
}

unlessLacking(() => (hasDecoder('zstd', 'auto') ? undefined : 'zstd of Node'))(
  'zstd, half a magic behind a frame: refused, where node:zlib takes it for nothing',
  async (t) => {
    const refused = await outcome(() => byLibrary('zstd', Buffer.concat([frame, frame.subarray(0, 3)]), 4096, 4096));
    t.is(refused, 'layer x: zstd: unexpected end of file: invalid argument');
  },
);
