import test from 'ava';
import { effectiveCapabilities, isInitialNamespace, privilegesOf } from './privilege.ts';

const all = { override: true, chown: true, device: true, capability: true, trusted: true, mark: true, mount: true };
const none = {
  override: false,
  chown: false,
  device: false,
  capability: false,
  trusted: false,
  mark: false,
  mount: false,
};

test('capabilities, not the user id, say what may be done', (t) => {
  t.deepEqual(privilegesOf(0x1ff_ffff_ffffn, true), all);
  t.deepEqual(privilegesOf(0n, true), none);
  // What container engines leave root with: no CAP_SYS_ADMIN.
  t.deepEqual(privilegesOf(0xa80425fbn, true), { ...all, trusted: false, mark: false, mount: false });
});

test('all capabilities over a user namespace are none over the machine', (t) => {
  t.deepEqual(privilegesOf(0x1ff_ffff_ffffn, false), { ...none, override: true });
});

test('what /proc says', (t) => {
  t.is(
    effectiveCapabilities('Name:\tnode\nCapPrm:\t00000000000000ff\nCapEff:\t00000000a80425fb\nCapBnd:\t0\n'),
    0xa80425fbn,
  );
  t.true(isInitialNamespace('         0          0 4294967295\n'));
  t.false(isInitialNamespace('         0       1000          1\n         1     100000      65536\n'));
  t.true(isInitialNamespace(undefined));
});
