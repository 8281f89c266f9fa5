import test from 'ava';
import { Failure } from 'troupe/plugin';
import { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { requireExecId, requireMounts, requirePath } from './request.ts';

const mount = (...options: string[]): Mount => Mount.fromPartial({ type: 'overlay', source: 'overlay', options });

test('mounts that containerd’s clients make pass as they are', (t) => {
  const mounts = [
    mount('index=off', 'workdir=/w', 'upperdir=/u', 'lowerdir=/a:/b'),
    mount('context="system_u:object_r:container_file_t:s0:c1,c2"'),
    Mount.fromPartial({ type: 'bind', source: '/', options: ['rbind', 'ro'] }),
  ];
  t.is(requireMounts(mounts), mounts);
});

for (const [what, mounts] of [
  ['a comma', [mount('ro,upperdir=/etc')]],
  ['a comma after quotes', [mount('context="a,b",suid')]],
  ['a NUL in an option', [mount('ro\0')]],
  ['a NUL in the source', [Mount.fromPartial({ type: 'bind', source: '/a\0b' })]],
  ['too many', Array.from({ length: 129 }, () => mount('ro'))],
] as const) {
  test(`${what} is an invalid argument`, (t) => {
    const failure = t.throws(() => requireMounts(mounts), { instanceOf: Failure }) as Failure;
    t.is(failure.code, 'InvalidArgument');
  });
}

test('exec ids and stdio paths', (t) => {
  requireExecId('e1.a_b');
  requirePath('binary:///usr/bin/logger?a=b');
  t.throws(() => requireExecId(''), { message: 'exec id cannot be empty: invalid argument' });
  t.throws(() => requireExecId('a b'), { message: /^invalid exec id a b: identifier "a b" must match/ });
  t.throws(() => requireExecId('../x'), { message: /^invalid exec id \.\.\/x: / });
  t.throws(() => requirePath('/a\0'), { message: /invalid argument$/ });
});
