/** Directories and addresses. */
import test from 'ava';
import { problems, warnings } from './rig.ts';

test('root and state', (t) => {
  t.deepEqual(problems(t, 'root = "/x"\nstate = "/x/"\n'), ['c.toml:2: root and state are the same directory, /x']);
  t.deepEqual(problems(t, 'root = "/run/x/root"\nstate = "/run/x"\n'), [
    'c.toml:1: root /run/x/root lies inside state /run/x, which does not survive a reboot',
  ]);
  t.deepEqual(problems(t, 'root = "x"\n'), ['c.toml:1: root must be an absolute path, not "x"']);
  t.deepEqual(problems(t, 'root = ""\n'), ['c.toml:1: root must be an absolute path, not ""']);
});

test('socket paths', (t) => {
  const long = `/${'x'.repeat(107)}`;
  t.deepEqual(problems(t, `[grpc]\naddress = "${long}"\n[ttrpc]\naddress = "/t"\n`), [
    `c.toml:2: grpc.address is 108 bytes long, a socket's path can have 107: ${long}`,
  ]);
  t.deepEqual(
    problems(t, `[grpc]\naddress = "/${'ü'.repeat(52)}"\n`).length,
    1,
    'bytes count, also of the path with .ttrpc',
  );
  t.deepEqual(problems(t, '[grpc]\naddress = "/same"\n[ttrpc]\naddress = "/same"\n'), [
    'c.toml:4: grpc and ttrpc have the same address, /same',
  ]);
  t.regex(problems(t, '[grpc]\naddress = "@abstract"\n')[0]!, /must be the absolute path of a unix socket/);
});

test('TCP asks for certificates on both sides', (t) => {
  t.deepEqual(problems(t, '[grpc]\ntcp_address = "127.0.0.1:5"\ntcp_tls_cert = "c"\ntcp_tls_key = "k"\n'), [
    'c.toml:2: grpc.tcp_address without tcp_tls_ca: whoever can connect would be root; kernel.front.insecure_tcp = true allows it',
  ]);
  t.deepEqual(warnings(t, '[grpc]\ntcp_address = "127.0.0.1:5"\n[kernel.front]\ninsecure_tcp = true\n'), [
    'c.toml:2: grpc.tcp_address without tcp_tls_cert, tcp_tls_key, tcp_tls_ca: whoever can connect would be root (allowed by kernel.front.insecure_tcp)',
  ]);
  t.deepEqual(
    problems(t, '[grpc]\ntcp_address = "127.0.0.1:5"\ntcp_tls_cert = "c"\ntcp_tls_key = "k"\ntcp_tls_ca = "a"\n'),
    [],
  );
  t.regex(
    problems(t, '[grpc]\ntcp_address = "nonsense"\n[kernel.front]\ninsecure_tcp = true\n')[0]!,
    /must be HOST:PORT/,
  );
});
