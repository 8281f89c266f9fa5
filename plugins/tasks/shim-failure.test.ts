import test from 'ava';
import { Failure } from 'troupe/plugin';
import { withoutPrivilege } from './shim-failure.ts';

test('what a daemon without privilege cannot do is told as that, whatever failed first', (t) => {
  for (const words of [
    'mkdir /run/containerd/s: permission denied: exit status 1',
    'runc: mount: Operation not permitted',
  ]) {
    const failure = withoutPrivilege(new Failure('Unknown', `failed to start shim: ${words}: unknown`), false);
    t.is(failure.code, 'PermissionDenied');
    t.is(
      failure.message,
      `failed to start shim: ${words}: this daemon may not mount, and containers take a daemon of root that may: permission denied`,
    );
  }
});

test('with privilege, and for other failures, the words stay', (t) => {
  const denied = new Failure('Unknown', 'exec: "sh": permission denied: unknown');
  t.is(withoutPrivilege(denied, true), denied);
  const missing = new Failure('Unknown', 'exec: "sh": no such file or directory: unknown');
  t.is(withoutPrivilege(missing, false), missing);
  const program = new Failure('Unknown', 'start failed: : fork/exec /x/shim: permission denied: unknown');
  t.is(withoutPrivilege(program, false), program);
  const late = new Failure('DeadlineExceeded', 'permission denied: context deadline exceeded');
  t.is(withoutPrivilege(late, false), late);
});
