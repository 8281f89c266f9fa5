/** Header compression against the examples of RFC 7541, against Node's encoder (nghttp2), and against bytes that mean nothing. */
import { once } from 'node:events';
import http2 from 'node:http2';
import { createServer, type Socket } from 'node:net';
import test from 'ava';
import { ConnectionError, frameFlag, frameType, settingsFrame } from './frames.ts';
import { FrameReader } from './frame-reader.ts';
import { headerBlock } from './header-block.ts';
import { HpackDecoder } from './hpack.ts';
import { decodeHuffman } from './huffman.ts';
import { staticTable } from './static-table.ts';

const limits = { maxListSize: 64 << 10, maxFields: 256 };
const hex = (text: string) => Buffer.from(text.replace(/ /g, ''), 'hex');
const read = (decoder: HpackDecoder, block: Buffer) =>
  decoder.decode(block, limits).fields.map(({ name, value }) => `${name}: ${value}`);

test('the table of appendix A', (t) => {
  t.is(staticTable.length, 61);
  t.deepEqual(staticTable[0], [':authority', '']);
  t.deepEqual(staticTable[15], ['accept-encoding', 'gzip, deflate']);
  t.deepEqual(staticTable[60], ['www-authenticate', '']);
});

// Appendix C.4 and C.6 of the RFC: three blocks on one connection, Huffman coded, the second with evictions.
test('requests of appendix C.4', (t) => {
  const decoder = new HpackDecoder();
  t.deepEqual(read(decoder, hex('8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff')), [
    ':method: GET',
    ':scheme: http',
    ':path: /',
    ':authority: www.example.com',
  ]);
  t.deepEqual(read(decoder, hex('8286 84be 5886 a8eb 1064 9cbf')), [
    ':method: GET',
    ':scheme: http',
    ':path: /',
    ':authority: www.example.com',
    'cache-control: no-cache',
  ]);
  t.deepEqual(read(decoder, hex('8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf')), [
    ':method: GET',
    ':scheme: https',
    ':path: /index.html',
    ':authority: www.example.com',
    'custom-key: custom-value',
  ]);
});

test('responses of appendix C.6, in a table of 256 bytes', (t) => {
  const decoder = new HpackDecoder();
  // The size is agreed on outside of the example.
  decoder.decode(hex('3f e1 01'), limits);
  t.deepEqual(
    read(
      decoder,
      hex(
        '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
      ),
    ),
    [
      ':status: 302',
      'cache-control: private',
      'date: Mon, 21 Oct 2013 20:13:21 GMT',
      'location: https://www.example.com',
    ],
  );
  t.deepEqual(read(decoder, hex('4883 640e ffc1 c0bf')), [
    ':status: 307',
    'cache-control: private',
    'date: Mon, 21 Oct 2013 20:13:21 GMT',
    'location: https://www.example.com',
  ]);
  t.deepEqual(
    read(
      decoder,
      hex(
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
      ),
    ),
    [
      ':status: 200',
      'cache-control: private',
      'date: Mon, 21 Oct 2013 20:13:22 GMT',
      'location: https://www.example.com',
      'content-encoding: gzip',
      'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
    ],
  );
});

test('what Node encodes is what comes out: every printable character, repeated and changing headers', async (t) => {
  const blocks: Buffer[] = [];
  const listener = createServer((socket: Socket) => {
    const reader = new FrameReader({
      greeted: () => {},
      frame: (type, flags, _id, payload) => {
        if (type !== frameType.headers) return;
        t.truthy(flags & frameFlag.endHeaders);
        blocks.push(Buffer.from((flags & frameFlag.priority) === 0 ? payload : payload.subarray(5)));
      },
    });
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.write(settingsFrame([]));
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on('error', () => {});
  await once(session, 'remoteSettings');
  const printable = String.fromCharCode(...Array.from({ length: 95 }, (_, at) => 32 + at)).trim();
  const sent: string[][] = [];
  for (let at = 0; at < 200; at++) {
    const fields: Record<string, string> = {
      'x-all': printable,
      'x-same': 'always',
      'x-count': String(at),
      [`x-name-${at % 90}`]: printable.slice(at % 90).repeat(1 + (at % 7)),
      'x-secret': `secret ${at}`,
    };
    const request = session.request({ ':path': `/${at}`, ...fields, [http2.sensitiveHeaders]: ['x-secret'] });
    request.on('error', () => {});
    sent.push(Object.entries(fields).map(([name, value]) => `${name}: ${value}`));
  }
  while (blocks.length < 200) await new Promise((resolve) => setImmediate(resolve));
  const decoder = new HpackDecoder();
  for (const [at, block] of blocks.entries()) {
    const fields = read(decoder, block);
    t.true(fields.includes(`:path: /${at}`));
    for (const field of sent[at]!) t.true(fields.includes(field), field);
  }
  session.destroy();
  await new Promise((resolve) => listener.close(resolve));
});

test('what we encode comes out again', (t) => {
  const fields: [string, string][] = [
    [':status', '200'],
    [':status', '418'],
    ['content-type', 'application/grpc'],
    ['grpc-message', 'x'.repeat(20_000)],
    ['grpc-status', ''],
    ['x'.repeat(200), 'y'],
  ];
  t.deepEqual(
    read(new HpackDecoder(), headerBlock(fields)),
    fields.map(([name, value]) => `${name}: ${value}`),
  );
});

test('limits stop the keeping, not the reading', (t) => {
  const decoder = new HpackDecoder();
  // A field of 4 KB, kept in the table, and then a reference to it, 10⁵ times.
  const first = Buffer.concat([
    Buffer.from([0x40, 1]),
    Buffer.from('a'),
    Buffer.from([0x7f, 0xa1, 0x1e]),
    Buffer.alloc(4000, 'v'),
  ]);
  const bomb = decoder.decode(Buffer.concat([first, Buffer.alloc(100_000, 0xbe)]), limits);
  t.true(bomb.oversize);
  t.true(bomb.fields.length < 20);
  const after = decoder.decode(Buffer.from([0xbe]), limits);
  t.is(after.fields[0]?.value.length, 4000);
  t.false(after.oversize);
});

test('values that are not ASCII are UTF-8, and count by bytes', (t) => {
  const value = Buffer.from('größe');
  const decoder = new HpackDecoder();
  const { fields } = decoder.decode(
    Buffer.concat([Buffer.from([0x40, 1]), Buffer.from('a'), Buffer.from([value.length]), value]),
    limits,
  );
  t.is(fields[0]?.value, 'größe');
  t.is(fields[0]?.size, 1 + value.length + 32);
});

test('a decoder given noise either reads it or says that the connection is at fault', (t) => {
  let seed = 1;
  const random = () => {
    // xorshift: the same noise in every run.
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
  let read = 0;
  for (let round = 0; round < 20_000; round++) {
    const block = Buffer.from(Array.from({ length: random() % 60 }, () => random() & (round % 3 === 0 ? 0xff : 0xbf)));
    try {
      new HpackDecoder().decode(block, limits);
      read += 1;
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
    }
    decodeHuffman(block, 0, block.length);
  }
  t.true(read > 100);
});
