/** For tests: frames, headers and messages as no honest client sends them, and some that are merely rare, each with what becomes of it. */
import { frameFlag, frameType, setting, settingsFrame } from './http2/frames.ts';
import { headerBlock } from './http2/header-block.ts';
import { call, data, type Fields, fieldsOf, frame, headers, message, u32 } from './raw-peer.ts';
import { contract } from './rig.ts';

const unary = `/${contract}/Unary`;
const nothing = Buffer.alloc(0);
const open = headers(1, fieldsOf(unary));
const hang = call(1, 'Hang');
const block = (...bytes: number[]) =>
  frame(frameType.headers, frameFlag.endHeaders | frameFlag.endStream, 1, Buffer.from(bytes));
const without = (name: string): Fields => fieldsOf(unary).filter(([each]) => each !== name);
const replaced = (name: string, value: string): Fields =>
  fieldsOf(unary).map(([each, old]) => (each === name ? [each, value] : [each, old]));
const whole = (fields: Fields) => Buffer.concat([headers(1, fields), data(1, message(Buffer.from('x')), true)]);
const continuation = (flags: number, streamId: number, bytes: Buffer = nothing) =>
  frame(frameType.continuation, flags, streamId, bytes);
const begun = frame(frameType.headers, 0, 1, headerBlock(fieldsOf(unary)));

/** What is sent after the preface and SETTINGS, and what becomes of it. */
export const cases: Record<string, [sent: Uint8Array[], ends: string]> = {
  'SETTINGS of 5 bytes': [[frame(frameType.settings, 0, 0, Buffer.alloc(5))], 'goaway 6'],
  'SETTINGS on a stream': [[frame(frameType.settings, 0, 1)], 'goaway 1'],
  'SETTINGS acknowledged with something in it': [
    [frame(frameType.settings, frameFlag.ack, 0, Buffer.alloc(6))],
    'goaway 6',
  ],
  'an initial window of 2^31': [[settingsFrame([[setting.initialWindowSize, 2 ** 31]])], 'goaway 3'],
  'a frame size of 100': [[settingsFrame([[setting.maxFrameSize, 100]])], 'goaway 1'],
  'a frame size of 2^24': [[settingsFrame([[setting.maxFrameSize, 2 ** 24]])], 'goaway 1'],
  'ENABLE_PUSH of 2': [[settingsFrame([[setting.enablePush, 2]])], 'goaway 1'],
  'an initial window that makes one overflow': [
    [
      call(1, 'Hang'),
      frame(frameType.windowUpdate, 0, 1, u32(2 ** 31 - 1 - 65_535)),
      settingsFrame([[setting.initialWindowSize, 2 ** 31 - 1]]),
    ],
    'goaway 3',
  ],
  'a frame longer than allowed': [[frame(frameType.ping, 0, 0, Buffer.alloc(16_385))], 'goaway 6'],
  'DATA on stream 0': [[data(0, nothing)], 'goaway 1'],
  'DATA on an idle stream': [[data(1, nothing)], 'goaway 1'],
  'DATA after the end': [[hang, data(1, Buffer.from('x'))], 'reset 5'],
  'DATA with more padding than bytes': [
    [open, frame(frameType.data, frameFlag.padded, 1, Buffer.from([5, 0, 0]))],
    'goaway 1',
  ],
  'padded DATA without the length of its padding': [[open, frame(frameType.data, frameFlag.padded, 1)], 'goaway 6'],
  'HEADERS on stream 0': [[headers(0, fieldsOf(unary))], 'goaway 1'],
  'HEADERS on an even stream': [[headers(2, fieldsOf(unary))], 'goaway 1'],
  'HEADERS on a lower stream': [[call(5, 'Unary'), headers(3, fieldsOf(unary))], 'goaway 5'],
  'HEADERS that depend on themselves': [
    [
      frame(
        frameType.headers,
        frameFlag.endHeaders | frameFlag.priority,
        1,
        Buffer.concat([u32(1), Buffer.from([0]), headerBlock(fieldsOf(unary))]),
      ),
    ],
    'reset 1',
  ],
  'HEADERS without the priority they announce': [
    [frame(frameType.headers, frameFlag.endHeaders | frameFlag.priority, 1, Buffer.from([0]))],
    'goaway 6',
  ],
  'HEADERS in the middle of a request': [[open, open], 'reset 1'],
  'CONTINUATION of nothing': [[continuation(frameFlag.endHeaders, 1)], 'goaway 1'],
  'a block interrupted by PING': [[begun, frame(frameType.ping, 0, 0, Buffer.alloc(8))], 'goaway 1'],
  'a block continued on another stream': [[begun, continuation(frameFlag.endHeaders, 3)], 'goaway 1'],
  'a block without end': [[begun, ...Array.from({ length: 20 }, () => continuation(0, 1))], 'goaway 11'],
  'a block without end, of bytes': [
    [begun, ...Array.from({ length: 20 }, () => continuation(0, 1, Buffer.alloc(16_384, 0x82)))],
    'goaway 11',
  ],
  'header index 0': [[block(0x80)], 'goaway 9'],
  'a header index beyond the table': [[block(0xff, 0x00)], 'goaway 9'],
  'a header integer without end': [[block(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f)], 'goaway 9'],
  'a header table larger than ours': [[block(0x3f, 0xe2, 0x1f)], 'goaway 9'],
  'a header table resized inside a block': [[block(0x83, 0x20)], 'goaway 9'],
  'a header string that is cut': [[block(0x00, 0x05, 0x61)], 'goaway 9'],
  'Huffman padding of zeros': [[block(0x00, 0x81, 0x18, 0x00)], 'goaway 9'],
  'Huffman padding of 8 bits': [[block(0x00, 0x82, 0x1f, 0xff, 0x00)], 'goaway 9'],
  'the end-of-string symbol': [[block(0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00)], 'goaway 9'],
  'no :path': [[whole(without(':path'))], 'reset 1'],
  'no :method': [[whole(without(':method'))], 'reset 1'],
  'no :scheme': [[whole(without(':scheme'))], 'reset 1'],
  'an empty :path': [[whole(replaced(':path', ''))], 'reset 1'],
  ':path twice': [[whole([[':path', unary], ...fieldsOf(unary)])], 'reset 1'],
  ':path after another field': [[whole([...without(':path'), [':path', unary]])], 'reset 1'],
  'an unknown pseudo-header': [[whole([[':secret', 'x'], ...fieldsOf(unary)])], 'reset 1'],
  ':status in a request': [[whole([[':status', '200'], ...fieldsOf(unary)])], 'reset 1'],
  'an upper-case name': [[whole(fieldsOf(unary, [['X-Name', 'x']]))], 'reset 1'],
  'a name with a space': [[whole(fieldsOf(unary, [['x name', 'x']]))], 'reset 1'],
  'no name': [[whole(fieldsOf(unary, [['', 'x']]))], 'reset 1'],
  'a value with a line feed': [[whole(fieldsOf(unary, [['containerd-namespace', 'a\nb']]))], 'reset 1'],
  'a value with NUL': [[whole(fieldsOf(unary, [['containerd-lease', 'a\0b']]))], 'reset 1'],
  connection: [[whole(fieldsOf(unary, [['connection', 'close']]))], 'reset 1'],
  'transfer-encoding': [[whole(fieldsOf(unary, [['transfer-encoding', 'chunked']]))], 'reset 1'],
  'te that is not trailers': [[whole(replaced('te', 'gzip'))], 'reset 1'],
  'less than content-length': [[whole(fieldsOf(unary, [['content-length', '7']]))], 'reset 1'],
  'more than content-length': [[whole(fieldsOf(unary, [['content-length', '5']]))], 'reset 1'],
  'exactly content-length': [[whole(fieldsOf(unary, [['content-length', '6']]))], 'status 0'],
  'a content-length that is no number': [[whole(fieldsOf(unary, [['content-length', '-6']]))], 'reset 1'],
  'WINDOW_UPDATE of 0': [[frame(frameType.windowUpdate, 0, 0, u32(0))], 'goaway 1'],
  'WINDOW_UPDATE of 0 on a stream': [[hang, frame(frameType.windowUpdate, 0, 1, u32(0))], 'reset 1'],
  'WINDOW_UPDATE of 3 bytes': [[frame(frameType.windowUpdate, 0, 0, Buffer.alloc(3))], 'goaway 6'],
  'a window that overflows': [[frame(frameType.windowUpdate, 0, 0, u32(2 ** 31 - 1))], 'goaway 3'],
  "a stream's window that overflows": [[hang, frame(frameType.windowUpdate, 0, 1, u32(2 ** 31 - 1))], 'reset 3'],
  'WINDOW_UPDATE on an idle stream': [[frame(frameType.windowUpdate, 0, 1, u32(1))], 'goaway 1'],
  'RST_STREAM on an idle stream': [[frame(frameType.rstStream, 0, 1, u32(8))], 'goaway 1'],
  'RST_STREAM on stream 0': [[frame(frameType.rstStream, 0, 0, u32(8))], 'goaway 1'],
  'RST_STREAM of 3 bytes': [[hang, frame(frameType.rstStream, 0, 1, Buffer.alloc(3))], 'goaway 6'],
  'PING of 7 bytes': [[frame(frameType.ping, 0, 0, Buffer.alloc(7))], 'goaway 6'],
  'PING on a stream': [[frame(frameType.ping, 0, 1, Buffer.alloc(8))], 'goaway 1'],
  'GOAWAY of 7 bytes': [[frame(frameType.goaway, 0, 0, Buffer.alloc(7))], 'goaway 6'],
  'PRIORITY on oneself': [[frame(frameType.priority, 0, 1, Buffer.from([0, 0, 0, 1, 1]))], 'goaway 1'],
  'trailers with :path': [[open, data(1, message(Buffer.from('x'))), headers(1, [[':path', '/x']], true)], 'reset 1'],
  'trailers that are not the end': [
    [open, data(1, message(Buffer.from('x'))), headers(1, [['x-trailer', 'x']])],
    'reset 1',
  ],
  'PRIORITY of 4 bytes': [[frame(frameType.priority, 0, 1, Buffer.alloc(4))], 'goaway 6'],
  PUSH_PROMISE: [[frame(frameType.pushPromise, frameFlag.endHeaders, 1, Buffer.alloc(4))], 'goaway 1'],
  'a frame of unknown type': [[frame(0xfa, 0xff, 77, Buffer.from('whatever')), call(1, 'Unary')], 'status 0'],
  'a GOAWAY, and a call all the same': [[frame(frameType.goaway, 0, 0, Buffer.alloc(8)), call(1, 'Unary')], 'status 0'],
  'padding everywhere': [
    [
      frame(
        frameType.headers,
        frameFlag.endHeaders | frameFlag.padded,
        1,
        Buffer.concat([Buffer.from([3]), headerBlock(fieldsOf(unary)), Buffer.alloc(3)]),
      ),
      frame(
        frameType.data,
        frameFlag.endStream | frameFlag.padded,
        1,
        Buffer.concat([Buffer.from([200]), message(Buffer.from('x')), Buffer.alloc(200)]),
      ),
    ],
    'status 0',
  ],
  'a block in nine pieces': [
    [
      frame(frameType.headers, frameFlag.endStream, 1, headerBlock(fieldsOf(unary)).subarray(0, 3)),
      ...Array.from({ length: 7 }, (_, at) =>
        continuation(0, 1, headerBlock(fieldsOf(unary)).subarray(3 + at, 4 + at)),
      ),
      continuation(frameFlag.endHeaders, 1, headerBlock(fieldsOf(unary)).subarray(10)),
    ],
    'status 13',
  ],
  'trailers of a request': [
    [open, data(1, message(Buffer.from('x'))), headers(1, [['x-trailer', 'x']], true)],
    'status 0',
  ],
  GET: [[whole(replaced(':method', 'GET'))], 'http 405'],
  'content-type text/html': [[whole(replaced('content-type', 'text/html'))], 'http 415'],
  'content-type application/grpcx': [[whole(replaced('content-type', 'application/grpcx'))], 'http 415'],
  'no content-type': [[whole(without('content-type'))], 'http 415'],
  'content-type application/grpc+proto': [[whole(replaced('content-type', 'application/grpc+proto'))], 'status 0'],
  'content-type application/grpc;charset': [
    [whole(replaced('content-type', 'application/grpc;charset=utf-8'))],
    'status 0',
  ],
  'no te': [[whole(without('te'))], 'status 0'],
  'no :authority': [[whole(without(':authority'))], 'status 0'],
  ':path with %2f': [[whole(replaced(':path', `/${contract}%2fUnary`))], 'status 12'],
  ':path //': [[whole(replaced(':path', `/${unary}`))], 'status 12'],
  ':path without slash': [[whole(replaced(':path', unary.slice(1)))], 'status 12'],
  ':path *': [[whole(replaced(':path', '*'))], 'status 12'],
  'grpc-encoding gzip': [[whole(fieldsOf(unary, [['grpc-encoding', 'gzip']]))], 'status 12'],
  'grpc-encoding identity': [[whole(fieldsOf(unary, [['grpc-encoding', 'identity']]))], 'status 0'],
  'a message marked as compressed': [[open, data(1, message(Buffer.from('x'), 1), true)], 'status 13'],
  'a message with flag 0xff': [[open, data(1, message(Buffer.from('x'), 0xff), true)], 'status 13'],
  'a message of 4 GiB, as it says': [[open, data(1, message(Buffer.from('x'), 0, 2 ** 32 - 1))], 'status 8'],
  'a message of 16 MiB and 1, as it says': [[open, data(1, message(nothing, 0, (16 << 20) + 1))], 'status 8'],
  'a message that is cut': [[open, data(1, message(Buffer.from('x'), 0, 2), true)], 'status 13'],
  'a prefix that is cut': [[open, data(1, Buffer.from([0, 0, 0]), true)], 'status 13'],
  'two messages for one': [
    [open, data(1, Buffer.concat([message(Buffer.from('x')), message(Buffer.from('y'))]), true)],
    'status 13',
  ],
  'no message': [[open, data(1, nothing, true)], 'status 13'],
  'no message, and no DATA': [[headers(1, fieldsOf(unary), true)], 'status 13'],
  'a stream that is cut inside a message': [
    [headers(1, fieldsOf(`/${contract}/Both`)), data(1, message(Buffer.from('x'), 0, 5), true)],
    'status 13',
  ],
  'grpc-timeout without unit': [[whole(fieldsOf(unary, [['grpc-timeout', '100']]))], 'status 13'],
  'grpc-timeout of 9 digits': [[whole(fieldsOf(unary, [['grpc-timeout', '999999999H']]))], 'status 13'],
  'grpc-timeout of -1': [[whole(fieldsOf(unary, [['grpc-timeout', '-1S']]))], 'status 13'],
  'grpc-timeout of 99999999 hours': [[whole(fieldsOf(unary, [['grpc-timeout', '99999999H']]))], 'status 0'],
  'grpc-timeout of a nanosecond': [[call(1, 'Hang', nothing, [['grpc-timeout', '1n']])], 'status 4'],
  'binary metadata that is not base64': [[whole(fieldsOf(unary, [['x-a-bin', 'not base64!']]))], 'status 13'],
  'binary metadata, padded, unpadded and several': [
    [
      whole(
        fieldsOf(unary, [
          ['x-a-bin', 'AAE='],
          ['x-b-bin', 'AAE'],
          ['x-c-bin', 'AA==, AAE='],
          ['x-d-bin', ''],
        ]),
      ),
    ],
    'status 0',
  ],
  'headers of 10 kB': [
    [
      whole(
        fieldsOf(
          unary,
          Array.from({ length: 70 }, (_, at) => [`x-${at}`, 'v'.repeat(100)]),
        ),
      ),
    ],
    'status 0',
  ],
  'headers of more than the limit': [bigHeaders(), 'status 8'],
  'more than 256 headers': [
    [
      whole(
        fieldsOf(
          unary,
          Array.from({ length: 300 }, (_, at) => [`x-${at}`, 'v']),
        ),
      ),
    ],
    'status 8',
  ],
};

/** Over 64 KiB, so in CONTINUATIONs. */
function bigHeaders(): Buffer[] {
  const bytes = headerBlock(fieldsOf(unary, [['x-big', 'v'.repeat(70_000)]]));
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 16_384) parts.push(bytes.subarray(at, at + 16_384));
  return [
    ...parts.map((part, at) =>
      frame(
        at === 0 ? frameType.headers : frameType.continuation,
        at === parts.length - 1 ? frameFlag.endHeaders : 0,
        1,
        part,
      ),
    ),
    data(1, message(Buffer.from('x')), true),
  ];
}
