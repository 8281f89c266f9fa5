/** `ctr namespaces`, and what each command says without a namespace, or in one of a bad name. */
import test from 'ava';
import { useBoth } from '../helpers/both.ts';
import { rootTest } from '../helpers/privilege.ts';

const both = useBoth(test);
const long = { LONG: 'y'.repeat(4095), LONGER: 'y'.repeat(4096) };

test.serial('made, listed, labelled, removed', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr namespaces ls
    ctr namespaces ls -q
    ctr namespaces create $NS-a k=v color=red
    ctr namespaces create $NS-a
    ctr namespaces create $NS-b
    ctr namespaces create
    ctr namespaces ls
    ctr namespaces ls -q
    ctr namespaces label $NS-a color=blue k= new=1
    ctr namespaces ls
    ctr namespaces label
    ctr namespaces label $NS-a
    # A label makes it, as containerd has it.
    ctr namespaces label $NS-c k=v
    ctr namespaces ls
    ctr namespaces rm $NS-a nowhere $NS-b
    ctr namespaces rm --cgroup $NS-c
    ctr namespaces rm
    ctr namespaces rm nowhere
    ctr namespaces ls
  `,
  );
  t.regex(ours, /n1-a color=red,k=v\n/);
  t.regex(ours, /ctr: namespace "n1-a": already exists\nexit 1\n/);
  t.is(ours, theirs);
});

test.serial('names and labels at their limits', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr namespaces create bad..name
    ctr namespaces create ../up
    ctr namespaces create -- -x
    ctr namespaces create 'with space'
    ctr namespaces create é
    ctr namespaces create $(head -c 77 /dev/zero | tr '\\0' x)
    ctr namespaces create $(head -c 76 /dev/zero | tr '\\0' x)
    ctr namespaces create A.b_c-9
    ctr namespaces create $NS-long k=$LONGER
    ctr namespaces create $NS-long k=$LONG
    ctr namespaces label $NS-long k=$LONGER
    ctr namespaces label $NS-long l=$LONG
    ctr namespaces ls | cut -c 1-200
    ctr namespaces ls | wc -c
    ctr namespaces rm $(ctr namespaces ls -q)
  `,
    { env: () => long, plain: (text) => text.replaceAll(long.LONGER, 'LONGER').replaceAll(long.LONG, 'LONG') },
  );
  t.regex(ours, /identifier "bad\.\.name" must match .*: invalid argument\nexit 1\n/);
  t.is(ours, theirs);
});

// containerd makes it, and can then not remove it.
test.serial('a label makes no namespace of a bad name', async (t) => {
  const { code, stderr } = await both.daemon.ctr(['namespaces', 'label', '../up', 'k=v']);
  t.is(code, 1);
  t.regex(stderr, /identifier "\.\.\/up" must match .*: invalid argument\n$/);
  t.notRegex((await both.daemon.ctr(['namespaces', 'ls'])).stdout, /up/);
});

rootTest.serial('one with something in it is not removed, and the refusal says what', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr leases create --id l
    ctr snapshots prepare s
    ctr namespaces rm $NS
    ctr snapshots rm s
    ctr snapshots --snapshotter native prepare s
    ctr namespaces rm $NS
    ctr snapshots --snapshotter native rm s
    echo text | ctr content ingest ref
    ctr namespaces rm $NS
    ctr snapshots prepare s
    ctr namespaces rm $NS
    ctr snapshots rm s
    ctr content rm $(ctr content ls -q)
    # Leases alone do not keep it, and go with it.
    ctr leases ls -q
    ctr namespaces rm $NS
    ctr leases ls -q
    ctr namespaces ls -q
  `,
  );
  t.regex(ours, /must be empty, but it still has snapshots on \\?"overlayfs\\?" snapshotter/);
  t.regex(ours, /must be empty, but it still has blobs/);
  t.is(ours, theirs);
});

const digest = `sha256:${'0'.repeat(64)}`;
const commands = [
  'images ls',
  'images check',
  'images tag a b',
  'images label a k=v',
  'images rm a',
  'images export out.tar a',
  'images convert a b',
  'containers ls',
  'containers info a',
  'containers rm a',
  'containers label a k=v',
  'tasks ls',
  'tasks kill a',
  'tasks pause a',
  'tasks metrics a',
  'content active',
  'content ls',
  `content get ${digest}`,
  `content rm ${digest}`,
  `content label ${digest} k=v`,
  'content ingest ref < /dev/null',
  'content prune references',
  'snapshots prepare a',
  'snapshots view a',
  'snapshots commit b a',
  'snapshots info a',
  'snapshots mounts /m a',
  'snapshots label a k=v',
  'snapshots usage a',
  'snapshots rm a',
  'snapshots diff a',
  'leases ls',
  'leases create',
  'leases rm a',
];
for (const [what, namespace] of [
  ['without a namespace', ''],
  ['in a namespace with a bad name', 'a..b'],
  ['in a namespace with a long name', 'x'.repeat(77)],
  ['in a namespace that nobody made', 'nobody'],
] as const) {
  test.serial(`every command ${what}`, async (t) => {
    const { ours, theirs } = await both(t, commands.map((command) => `ctr -n '${namespace}' ${command}`).join('\n'));
    t.is(ours, theirs);
  });
}
