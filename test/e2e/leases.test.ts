/** `ctr leases`: made, listed, expired, deleted; and what a lease keeps, as the collector sees it. */
import test from 'ava';
import { useBoth } from '../helpers/both.ts';

const both = useBoth(test);

test.serial('made, listed, deleted', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr leases ls
    ctr leases ls -q
    ctr leases create --id one
    ctr leases create --id one
    ctr leases create --id two --expires 0s k=v other=w
    ctr leases create --id three -x 1h k=v
    ctr leases create | grep -cE '^[0-9]+-.{4}$'
    ctr leases create k
    ctr leases create --id 'with space/and é'
    ctr leases create --id ../up
    ctr leases create --id $(head -c 300 /dev/zero | tr '\\0' x)
    ctr leases create --id bad --expires nonsense
    ctr leases create --id long k=$LONG
    ctr leases ls -q | grep -v -- -
    ctr leases ls | grep -v -e '[0-9]-' | cut -c 1-400
    ctr leases ls id==two
    ctr leases ls -q 'labels.k==v'
    ctr leases ls -q 'labels."other"==w' id==one
    ctr leases ls -q 'id~=^t'
    ctr leases ls -q nothing==x
    ctr leases ls '('
    ctr -n $NS-other leases ls
    ctr -n $NS-other leases create --id one
    ctr -n $NS-other leases rm two
    ctr leases rm nope
    ctr leases rm
    ctr leases rm one nope two
    ctr leases ls -q one two
    ctr leases rm three three
    ctr leases rm --sync ../up
    ctr leases ls -q | grep -v -e - | cut -c 1-100
    ctr -n $NS-other leases ls -q
  `,
    { env: () => ({ LONG: 'y'.repeat(4095), LONGER: 'y'.repeat(4096) }) },
  );
  t.is(ours, theirs);
});

test.serial('one that has expired keeps nothing, and goes with the next collection', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr leases create --id old --expires -1h
    ctr leases create --id new --expires 1h
    ctr leases create --id ever --expires 0
    ctr leases create --id label --expires 0 containerd.io/gc.expire=2001-01-01T00:00:00Z
    ctr leases create --id flat --expires 0 containerd.io/gc.flat=yes
    ctr leases ls
    ctr leases rm --sync $(ctr leases create --id collect)
    ctr leases ls
  `,
  );
  t.is(ours, theirs);
});

// containerd limits no labels of leases; a record of ours has its limit whatever it is of.
test.serial('a label of more than 4096 bytes is refused, and nothing is made', async (t) => {
  const { code, stderr } = await both.daemon.ctr(['leases', 'create', '--id', 'longer', `k=${'y'.repeat(4096)}`]);
  t.is(code, 1);
  t.regex(stderr, /label key and value greater than maximum size \(4096 bytes\), key: k: invalid argument\n$/);
  t.is((await both.daemon.ctr(['leases', 'ls', '-q', 'id==longer'])).stdout, '');
});
