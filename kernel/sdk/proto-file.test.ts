import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { useScratch } from '../../test/helpers/scratch.ts';
import { definitionFromFile } from './proto-file.ts';

const proto = `
syntax = "proto3";
package example.v1;
import "google/protobuf/timestamp.proto";
enum Mood { CALM = 0; GLAD = 1; }
message Inner { string text = 1; }
message Hello {
  string name = 1; int64 big = 2; bytes raw = 3; repeated uint64 many = 4; map<string, Inner> by_name = 5;
  Inner inner = 6; Mood mood = 7; google.protobuf.Timestamp at = 8; oneof which { string one = 9; int32 two = 10; } bool flag = 11;
}
service Greeter { rpc SayHello (Hello) returns (Hello); rpc Chat (stream Hello) returns (stream Hello); }
`;

function fixture(t: Parameters<typeof useScratch>[0], text = proto): string {
  const file = join(useScratch(t), 'example.proto');
  writeFileSync(file, text);
  return file;
}

test('messages look as generated ones do', (t) => {
  const { methods, name, fullName } = definitionFromFile('example.v1.Greeter', fixture(t));
  t.deepEqual([name, fullName, Object.keys(methods)], ['Greeter', 'example.v1.Greeter', ['sayHello', 'chat']]);
  t.deepEqual(
    [methods.chat!.requestStream, methods.chat!.responseStream, methods.sayHello!.responseStream],
    [true, true, false],
  );
  const codec = methods.sayHello!.requestType;
  const message = {
    name: 'Ana',
    big: -(2n ** 60n),
    raw: Uint8Array.of(1, 2),
    many: [2n ** 63n],
    byName: { a: { text: 'x' } },
    inner: { text: 'y' },
    mood: 1,
    at: { seconds: 5n, nanos: 6 },
    one: 'z',
    two: undefined,
    flag: true,
  };
  const decoded = codec.decode(codec.encode(message).finish()) as typeof message;
  t.deepEqual({ ...decoded, raw: Uint8Array.from(decoded.raw) }, message);
});

test('what is absent has the value that generated code gives it', (t) => {
  const codec = definitionFromFile('example.v1.Greeter', fixture(t)).methods.sayHello!.requestType;
  t.deepEqual(codec.decode(new Uint8Array()), {
    name: '',
    big: 0n,
    raw: new Uint8Array(),
    many: [],
    byName: {},
    inner: undefined,
    mood: 0,
    at: undefined,
    one: undefined,
    two: undefined,
    flag: false,
  });
});

test('a file that does not parse is told with its line', (t) => {
  const file = fixture(t, 'syntax = "proto3";\nmessage {');
  const error = t.throws(() => definitionFromFile('a.B', file));
  t.regex(error.message, /example\.proto.*line 2/s);
});

test('a service that is not there is told by name', (t) => {
  t.throws(() => definitionFromFile('example.v1.Other', fixture(t)), {
    message: /describes no service example\.v1\.Other: not found/,
  });
});
