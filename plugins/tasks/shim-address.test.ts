import test from 'ava';
import { Failure } from 'troupe/plugin';
import { BootstrapResult } from 'troupe/proto/containerd/runtime/bootstrap/v1/bootstrap.ts';
import { derivedSocketPath, parseStartOutput } from './shim-address.ts';

const text = (value: string): Uint8Array => Buffer.from(value);
const result = (fields: Partial<BootstrapResult>): Uint8Array =>
  BootstrapResult.encode(BootstrapResult.fromPartial(fields)).finish();

const understood: [what: string, output: Uint8Array, path: string, version: number][] = [
  ['a plain address', text('unix:///run/containerd/s/abc'), '/run/containerd/s/abc', 2],
  ['an address with a newline', text('unix:///run/s\n'), '/run/s', 2],
  ['a bare path', text('/run/s'), '/run/s', 2],
  ['JSON of version 3', text('{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}'), '/run/s', 3],
  ['JSON of version 2 without a protocol', text(' {"version":2,"address":"unix:///run/s"}\n'), '/run/s', 2],
  ['a BootstrapResult', result({ version: 3, address: 'unix:///run/s', protocol: 'ttrpc' }), '/run/s', 3],
];

for (const [what, output, path, version] of understood) {
  test(`${what} is understood`, (t) => t.deepEqual(parseStartOutput(output) as object, { path, version }));
}

const refused: [what: string, output: Uint8Array, code: string][] = [
  ['nothing', text(''), 'Unknown'],
  ['white space', text(' \n'), 'Unknown'],
  ['words', text('panic: runtime error'), 'Unknown'],
  ['a relative path', text('unix://run/s'), 'Unknown'],
  ['two lines', text('unix:///run/s\nwarning: x'), 'Unknown'],
  ['a path over the limit of sockets', text(`unix:///${'x'.repeat(107)}`), 'Unknown'],
  ['a path with NUL', text('unix:///run/\0s'), 'Unknown'],
  ['half of JSON', text('{"version":3,"addr'), 'Unknown'],
  ['JSON of version 1', text('{"version":1,"address":"unix:///run/s"}'), 'Unknown'],
  ['JSON of version 99', text('{"version":99,"address":"unix:///run/s","protocol":"ttrpc"}'), 'Unimplemented'],
  [
    'a BootstrapResult of version 4',
    result({ version: 4, address: 'unix:///run/s', protocol: 'ttrpc' }),
    'Unimplemented',
  ],
  ['another protocol', result({ version: 3, address: 'unix:///run/s', protocol: 'grpc' }), 'Unimplemented'],
  ['another scheme', text('hvsock://x:1'), 'Unimplemented'],
  ['bytes of no kind', Uint8Array.of(8, 255), 'Unknown'],
];

for (const [what, output, code] of refused) {
  test(`${what} is refused`, (t) => {
    const failure = t.throws(() => parseStartOutput(output), { instanceOf: Failure }) as Failure;
    t.is(failure.code, code as never);
    t.true(failure.message.length < 1024);
  });
}

test('the socket of a shim follows from the daemon’s address, as containerd’s shims derive it', (t) => {
  t.is(
    derivedSocketPath('/dev/shm/cd/c.sock', 'default', 'c1'),
    '/run/containerd/s/055979afcadc80236e7e9cd03aac4e43e4263db1457eb83b95443dd992ca2789',
  );
});
