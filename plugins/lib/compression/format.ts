/** Compression of layers, told by the first bytes as containerd tells it: media types lie, and what is not recognised is read as it is. */

/** RFC 1952, RFC 8878 (also its skippable frames), xz file format 1.2, bzip2. */
export type Compression = 'none' | 'gzip' | 'zstd';

/** Formats that are recognised only to be named in a refusal. */
export type Unsupported = 'xz' | 'bzip2';

/** Bytes that `detectCompression` wants to see; fewer only when the stream is shorter. */
export const MAGIC_BYTES = 10;

const GZIP = Buffer.from([0x1f, 0x8b, 0x08]);
const ZSTD = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const XZ = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
/** Behind `BZh` and a digit: pi, the mark of the first block. */
const BZIP2_BLOCK = Buffer.from([0x31, 0x41, 0x59, 0x26, 0x53, 0x59]);

export function detectCompression(head: Uint8Array): Compression | Unsupported {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (startsWith(bytes, GZIP)) return 'gzip';
  if (startsWith(bytes, ZSTD) || isSkippableFrame(bytes)) return 'zstd';
  if (startsWith(bytes, XZ)) return 'xz';
  if (bytes.toString('latin1', 0, 3) === 'BZh' && startsWith(bytes.subarray(4), BZIP2_BLOCK)) return 'bzip2';
  return 'none';
}

/** 0x184D2A50 to 0x184D2A5F, little endian. */
function isSkippableFrame(bytes: Buffer): boolean {
  return bytes.length >= 4 && (bytes[0]! & 0xf0) === 0x50 && bytes.readUIntLE(1, 3) === 0x184d2a;
}

function startsWith(bytes: Buffer, magic: Buffer): boolean {
  return bytes.length >= magic.length && bytes.subarray(0, magic.length).equals(magic);
}
