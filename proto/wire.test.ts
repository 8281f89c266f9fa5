import { ScalarType, type DescField, type DescMessage, create, equals, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import test from 'ava';
import { descriptors, messagesOf } from './descriptors.ts';
import { LogLevel } from './gen/containerd/runtime/bootstrap/v1/bootstrap.ts';
import { Container } from './gen/containerd/services/containers/v1/containers.ts';
import { WriteAction, WriteContentRequest } from './gen/containerd/services/content/v1/content.ts';
import { DeleteImageRequest, UpdateImageRequest } from './gen/containerd/services/images/v1/images.ts';
import { Lease } from './gen/containerd/services/leases/v1/leases.ts';
import { TaskExit } from './gen/containerd/events/task.ts';
import { BootstrapParams } from './gen/containerd/runtime/bootstrap/v1/bootstrap.ts';
import { CPUUsage } from './gen/io/containerd/cgroups/v1/metrics.ts';
import { events } from './gen/events.ts';
import { services } from './gen/services.ts';
import { Value } from './gen/troupe/records/v1/records.ts';
import type { MessageCodec } from './message.ts';
import { BinaryReader, BinaryWriter } from './wire.ts';

const bytes = (...parts: (number | string)[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === 'string' ? [...Buffer.from(part)] : [part])));

/** A value for each scalar that is not its default and uses the top of its range. */
function sample(type: ScalarType): bigint | number | boolean | string | Uint8Array {
  switch (type) {
    case ScalarType.STRING:
      return 'ünï/côde:1';
    case ScalarType.BYTES:
      return bytes(0, 1, 254, 255);
    case ScalarType.BOOL:
      return true;
    case ScalarType.UINT32:
      return 0xffff_ffff;
    case ScalarType.UINT64:
      return 2n ** 64n - 1n;
    case ScalarType.INT64:
      return -(2n ** 63n);
    case ScalarType.INT32:
      return -(2 ** 31);
    case ScalarType.DOUBLE:
      return 0.1;
    default:
      throw new Error(`no contract uses ${ScalarType[type]} yet`);
  }
}

function fill(message: ReflectMessage): ReflectMessage {
  for (const field of message.fields) {
    const one = () =>
      field.message ? fill(reflect(field.message)) : field.enum ? lastOf(field) : sample(field.scalar!);
    if (field.fieldKind === 'list') for (const item of [one(), one()]) message.get(field).add(item);
    else if (field.fieldKind === 'map') message.get(field).set('io.example/key', one());
    else message.set(field, one());
  }
  return message;
}

const lastOf = (field: DescField) => field.enum!.values.at(-1)!.number;

async function codecOf(message: DescMessage): Promise<MessageCodec> {
  const name = message.typeName.slice(message.file.proto.package.length + 1).replaceAll('.', '_');
  const module: Record<string, MessageCodec> = await import(`./gen/${message.file.name}.ts`);
  return module[name]!;
}

test('every field of every message passes through the generated code unchanged', async (t) => {
  // The other side is a second implementation, which reads the descriptors and not our code.
  for (const message of descriptors().flatMap(messagesOf)) {
    const codec = await codecOf(message);
    t.is(codec.$type, message.typeName);
    const full = fill(reflect(message, create(message))).message;
    const wire = codec.encode(codec.fromPartial(codec.decode(toBinary(message, full)) as object)).finish();
    t.true(equals(message, fromBinary(message, wire), full), message.typeName);
    t.is(codec.encode(codec.decode(new Uint8Array())).finish().length, 0, `${message.typeName} of defaults`);
  }
});

test('bytes on the wire are the ones that other implementations write', (t) => {
  const exit = { containerId: 'web', id: 'sh', pid: 7, exitStatus: 255, exitedAt: { seconds: 1n, nanos: 5 } };
  const wire = bytes(0x0a, 3, 'web', 0x12, 2, 'sh', 0x18, 7, 0x20, 0xff, 1, 0x2a, 4, 0x08, 1, 0x10, 5);
  t.deepEqual(TaskExit.encode(exit).finish(), wire);
  t.deepEqual(TaskExit.decode(wire), exit);
});

test('nanoseconds, 64-bit numbers and negative enum values keep every digit', (t) => {
  const exitedAt = { seconds: 1_700_000_000n, nanos: 123_456_789 };
  const exit = TaskExit.fromPartial({ exitedAt });
  t.deepEqual(TaskExit.decode(TaskExit.encode(exit).finish()).exitedAt, exitedAt);
  const write = WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, total: 2n ** 60n + 1n });
  t.is(WriteContentRequest.decode(WriteContentRequest.encode(write).finish()).total, 2n ** 60n + 1n);
  const params = BootstrapParams.fromPartial({ logLevel: LogLevel.LOG_LEVEL_TRACE });
  t.is(BootstrapParams.decode(BootstrapParams.encode(params).finish()).logLevel, -8);
});

test('messages that are written at once, or are never finished, keep out of each other', (t) => {
  const one = new BinaryWriter().uint32(10).string('one');
  const abandoned = new BinaryWriter().uint32(10).fork().uint32(10).string('never finished');
  const two = new BinaryWriter().uint32(10).string('two');
  one.uint32(18).fork().uint32(10).string('more of one').join();
  const first = one.finish();
  two.uint32(18).string('more of two');
  const second = two.finish();
  const third = new BinaryWriter().uint32(10).string('three').finish();
  // What is written to one that was finished is nobody else's bytes.
  one.uint32(26).string('late');
  abandoned.string('late as well');
  t.is(Buffer.from(first).toString('latin1'), '\x0a\x03one\x12\x0d\x0a\x0bmore of one');
  t.is(Buffer.from(second).toString('latin1'), '\x0a\x03two\x12\x0bmore of two');
  t.is(Buffer.from(third).toString('latin1'), '\x0a\x05three');
});

test('messages within messages, wherever the memory that they are written to ends', (t) => {
  const text = Buffer.alloc(200, 'x');
  const expected = Buffer.from([
    0x0a,
    0xd4,
    0x01,
    0x0a,
    0x04,
    0x78,
    0x78,
    0x78,
    0x78,
    0x12,
    0xcb,
    0x01,
    0x0a,
    0xc8,
    0x01,
    ...text,
    0x18,
    0x01,
  ]);
  for (let room = 0; room < 300; room++) {
    // So many bytes are left of the piece that small messages share.
    const { buffer, byteOffset, length } = new BinaryWriter().bool(true).finish();
    const filler = new BinaryWriter();
    for (let left = buffer.byteLength - byteOffset - length; left > room; left--) filler.bool(true);
    filler.finish();
    const bytes = new BinaryWriter()
      .uint32(10)
      .fork()
      .uint32(10)
      .bytes(text.subarray(0, 4))
      .uint32(18)
      .fork()
      .uint32(10)
      .bytes(text)
      .join()
      .join()
      .uint32(24)
      .bool(true)
      .finish();
    t.is(Buffer.from(bytes).toString('hex'), expected.toString('hex'), `${room} bytes before the end`);
  }
});

test('strings of every length and alphabet, in messages of every size', (t) => {
  const kept: { text: string; bytes: Uint8Array }[] = [];
  const alphabets = ['a', 'é', '中', '😀', 'a😀', '\ud800'];
  const lengths = [0, 1, 15, 16, 42, 43, 63, 64, 127, 128, 5460, 5461, 5462, 16_383, 16_384, 65_536, 700_000];
  for (const alphabet of alphabets) {
    for (const length of lengths) {
      const text = alphabet.repeat(length);
      const bytes = new BinaryWriter()
        .uint32(10)
        .fork()
        .uint32(10)
        .string(text)
        .uint32(18)
        .string(text)
        .join()
        .finish();
      kept.push({ text, bytes });
    }
  }
  // Read when all have been written: none lies on another.
  for (const { text, bytes } of kept) {
    const length = Buffer.byteLength(text);
    const reader = new BinaryReader(bytes);
    t.is(reader.tag(), 10);
    t.is(reader.uint32(), bytes.length - reader.pos);
    for (const tag of [10, 18]) {
      t.is(reader.tag(), tag);
      const read = reader.bytes();
      t.is(read.length, length);
      t.true(Buffer.from(text).equals(read), `${length} bytes`);
    }
    t.is(reader.pos, bytes.length);
  }
});

test('bytes are views into what was decoded', (t) => {
  const wire = WriteContentRequest.encode(WriteContentRequest.fromPartial({ data: bytes(1, 2, 3) })).finish();
  t.is(WriteContentRequest.decode(wire).data.buffer, wire.buffer);
});

test('a field that may be absent is told from one that is empty', (t) => {
  t.is(DeleteImageRequest.decode(bytes(0x0a, 1, 'a')).target, undefined);
  t.is(DeleteImageRequest.decode(bytes(0x0a, 1, 'a', 0x1a, 0)).target?.digest, '');
  t.is(UpdateImageRequest.decode(bytes()).updateMask, undefined);
  t.deepEqual(UpdateImageRequest.decode(bytes(0x12, 0)).updateMask, []);
  t.deepEqual(Value.encode(Value.fromPartial({ integer: 0 })).finish(), bytes(0x10, 0));
  t.is(Value.decode(bytes(0x10, 0)).integer, 0n);
  for (const value of [{ null: true }, { integer: -1n }, { real: 0 }, { text: '' }, { blob: bytes() }]) {
    t.like(Value.decode(Value.encode(Value.fromPartial(value)).finish()), value);
  }
});

test('a label named __proto__ is a label', (t) => {
  const entry = bytes(0x0a, 9, '__proto__', 0x12, 1, 'x');
  const lease = Lease.decode(bytes(0x1a, entry.length, ...entry));
  t.deepEqual(Object.entries(lease.labels), [['__proto__', 'x']]);
  t.deepEqual(Object.entries(Lease.fromPartial(lease).labels), [['__proto__', 'x']]);
  t.deepEqual(Lease.encode(lease).finish(), bytes(0x1a, entry.length, ...entry));

  const extension = bytes(0x0a, 9, '__proto__', 0x12, 3, 0x0a, 1, 'T');
  const { extensions } = Container.decode(bytes(0x52, extension.length, ...extension));
  t.is(Object.getPrototypeOf(extensions), Object.prototype);
  t.is(Object.entries(extensions)[0]?.[1].typeUrl, 'T');
});

test('fields of newer peers are skipped, and what is cut off is refused', (t) => {
  // Field 99 as varint, 64 bits, bytes, group and 32 bits; then the field that we know.
  const unknown = [0x98, 6, 1, 0x99, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x9a, 6, 1, 9, 0x9b, 6, 0x9c, 6, 0x9d, 6, 0, 0, 0, 0];
  t.is(Lease.decode(bytes(...unknown, 0x0a, 1, 'a')).id, 'a');
  t.is(Lease.decode(bytes(0x08, 5, 0x0a, 1, 'a')).id, 'a', 'a known field of another wire type');
  t.throws(() => Lease.decode(bytes(0x0a, 5, 'a')), { instanceOf: Error });
  t.throws(() => Lease.decode(bytes(0x0a)), { instanceOf: Error });
  t.throws(() => Lease.decode(bytes(0x1a, 5, 0x0a, 1, 'a')), { instanceOf: Error }, 'a message inside');
  const groups = new Uint8Array(2_000_000).map((_, i) => (i % 2 === 0 ? 0x9b : 6));
  t.throws(() => Lease.decode(groups), { instanceOf: Error }, 'a million groups inside each other');
});

test('no two readers disagree about a message: what Go refuses is refused', (t) => {
  const refused: Record<string, Uint8Array> = {
    'a varint of eleven bytes': bytes(0x98, 6, ...new Array(10).fill(0x80), 1),
    'a varint of more than 64 bits': bytes(0x98, 6, ...new Array(9).fill(0xff), 2),
    'field number 0': bytes(0x02, 1, 0, 0x0a, 1, 'a'),
    'tag 0': bytes(0x00, 0, 0x0a, 1, 'a'),
    'field number 2^29': bytes(0x82, 0x80, 0x80, 0x80, 0x10, 1, 0),
    'a group that ends without having begun': bytes(0x9c, 6, 0x0a, 1, 'a'),
    'a group without end': bytes(0x9b, 6, 0x08, 1),
    'wire type 6': bytes(0x9e, 6, 0),
    'wire type 7': bytes(0x0f, 0),
    'a field that reaches beyond the message it is in': bytes(0x1a, 4, 0x0a, 5, 'abcde', 0x12, 0),
    'a string that is no UTF-8': bytes(0x0a, 2, 0xc3, 0x28),
    'a string of overlong UTF-8': bytes(0x0a, 2, 0xc0, 0x80),
  };
  const lease = descriptors()
    .flatMap(messagesOf)
    .find(({ typeName }) => typeName === Lease.$type)!;
  for (const [what, wire] of Object.entries(refused))
    t.throws(() => Lease.decode(wire), { instanceOf: RangeError }, what);

  // A number list says how long it is, and its numbers have to end there.
  t.throws(() => CPUUsage.decode(bytes(0x22, 1, 0x80, 1, 0x18, 1)), { instanceOf: RangeError });

  // Cut off at any byte, a message is one that ends between two fields, or none at all; never another.
  const whole = fill(reflect(lease, create(lease))).message;
  const wire = toBinary(lease, whole);
  for (let length = 0; length < wire.length; length++) {
    const cut = wire.slice(0, length);
    const known = attempt(() => fromBinary(lease, cut));
    const ours = attempt(() => Lease.encode(Lease.decode(cut)).finish());
    t.is(ours === undefined, known === undefined, `${length} bytes`);
    if (ours !== undefined) t.true(equals(lease, fromBinary(lease, ours), known!), `${length} bytes`);
  }
});

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

test('services and events are found by their full names', async (t) => {
  for (const service of descriptors().flatMap((file) => file.services)) {
    const definition = await services[service.typeName]!();
    t.is(definition.fullName, service.typeName);
    const methods = Object.values(definition.methods).map((method) => [
      method.name,
      method.requestType.$type,
      method.requestStream,
      method.responseType.$type,
      method.responseStream,
    ]);
    const expected = service.methods.map(({ name, input, output, proto }) => [
      name,
      input.typeName,
      proto.clientStreaming,
      output.typeName,
      proto.serverStreaming,
    ]);
    t.deepEqual(methods, expected, service.typeName);
  }
  for (const [name, load] of Object.entries(events)) t.is((await load()).$type, name);
  t.false('containerd.events.TaskIO' in events);
  t.true('containerd.services.images.v1.ImageDelete' in events);
});
