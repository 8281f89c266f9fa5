/** `ctr content`: ingests, blobs, labels, edits; what is collected and what several namespaces share. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { useBoth } from '../helpers/both.ts';
import { imageLayout, upperLayer, writeOciArchive } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';

const both = useBoth(test);
const hello = 'sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03';
const zero = `sha256:${'0'.repeat(64)}`;

/** Files go just after the answer, or before it. */
const gone = (path: string): string => `while test -e ${path}; do ctr version > $OUT/null 2>&1; done`;

test.before(() => {
  writeFileSync(join(both.fixtures, 'hello'), 'hello\n');
  writeFileSync(join(both.fixtures, 'vi'), '#!/bin/sh\nsed -i s/hello/goodbye/ "$1"\n', { mode: 0o755 });
  writeFileSync(join(both.fixtures, 'big'), Buffer.alloc(20_000_000, 'abcdefghijklmnopqrstuvwxyz\n'));
  const base = (dir: string): void => mkdirSync(join(dir, 'content-test'));
  writeOciArchive(
    join(both.fixtures, 'oci.tar'),
    imageLayout({ layers: [base, upperLayer] }),
    'example.test/content:1',
  );
});

test.serial('ingest, get, rm, and what each refuses', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr content ls
    ctr content ls -q
    ctr content active
    ctr content ingest one < $DIR/hello
    ctr content ingest one < $DIR/hello
    ctr content ls
    ctr content ls -q
    ctr content get ${hello}
    ctr content get ${zero}
    ctr content get nonsense
    ctr content get
    ctr content ingest < $DIR/hello
    ctr content ingest '' < $DIR/hello
    ctr content ingest --expected-size 6 --expected-digest ${hello} two < $DIR/hello
    ctr content ingest --expected-size 5 three < $DIR/hello
    ctr content active | awk '{ print $1, $2 }' | sort
    ctr content ingest --expected-size 7 --expected-digest ${zero} four < $DIR/hello
    ctr content ingest --expected-digest ${zero} five < $DIR/hello
    ctr content ingest --expected-digest ${zero} --expected-size 6 six < $DIR/hello
    ctr content ingest --expected-digest nonsense seven < $DIR/hello
    ctr content active | awk '{ print $1, $2 }' | sort
    ls $INGEST | wc -l
    ctr content ingest three < $DIR/hello
    ctr content ingest five < /dev/null
    ctr content active | awk '{ print $1, $2 }' | sort
    ctr content ls
    ctr content ingest empty < /dev/null
    ctr content ls
    ctr content get sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    ctr content ingest big < $DIR/big
    ctr content ls
    ctr content get $(sha256sum < $DIR/big | sed 's/\\(.*\\) .*/sha256:\\1/') | cmp - $DIR/big
    ctr content ingest 'ref with / and é' < $DIR/hello
    ctr content active zzz
    stat -c %a $BLOBS/*
    ctr content rm ${hello} ${zero} nonsense
    ctr content rm
    ctr content ls -q
    ctr -n '' content active
    ctr -n '' content ingest x < $DIR/hello
    ctr -n '' content get ${hello}
    ctr -n '' content rm ${hello}
    ctr -n '' content label ${hello} a=b
    ctr -n a..b content active
    ctr -n a..b content ingest x < $DIR/hello
    ctr -n a..b content get ${hello}
    ctr -n a..b content rm ${hello}
  `,
  );
  t.is(ours, theirs);
});

test.serial('a client that dies in mid-stream, and one that goes on where it ended', async (t) => {
  const digest = '$(sha256sum < $DIR/big | sed "s/\\(.*\\) .*/sha256:\\1/")';
  const { ours, theirs } = await both(
    t,
    `
    mkfifo $OUT/pipe; ctr content ingest slow < $OUT/pipe > $OUT/log 2>&1 & \
      exec 3> $OUT/pipe; head -c 10000000 $DIR/big >&3; \
      until ctr content active | grep -q 9.437MB; do :; done; \
      ctr content active | awk '{ print $1, $2 }'; \
      ctr --timeout 300ms content ingest slow < $DIR/hello 2> null || echo kept out; \
      { kill -9 $!; wait $!; } 2> null; \
      ctr content active | awk '{ print $1, $2 }'
    ctr content ingest --expected-digest ${digest} --expected-size 20000000 slow < $DIR/big
    ctr content ls
    ctr content active
  `,
  );
  t.is(ours, theirs);
  t.regex(ours, /kept out\nREF SIZE\nslow 9\.437MB\n/);
});

test.serial('who would write to a ref that is being written to is told so', async (t) => {
  // By calls: ctr asks again until its time is up, and what it says then depends on where that finds it.
  const told = await Promise.all(
    both.addresses().map(async (address) => {
      const client = new GrpcClient(address, { namespace: 'held' });
      t.teardown(() => client.close());
      const { write } = typedClient(client, ContentDefinition);
      const released = Promise.withResolvers<void>();
      async function* holding(): AsyncGenerator<WriteContentRequest> {
        yield WriteContentRequest.fromPartial({ action: WriteAction.STAT, ref: 'held' });
        await released.promise;
      }
      async function* asking(): AsyncGenerator<WriteContentRequest> {
        yield WriteContentRequest.fromPartial({ action: WriteAction.STAT, ref: 'held' });
      }
      const writer = write(holding())[Symbol.asyncIterator]();
      t.is((await writer.next()).value?.offset, 0n);
      const refused = await t.throwsAsync(write(asking())[Symbol.asyncIterator]().next(), { code: 'Unavailable' });
      released.resolve();
      while (!(await writer.next()).done);
      t.is((await write(asking())[Symbol.asyncIterator]().next()).value?.offset, 0n);
      // containerd says its own, longer name of the ref.
      return refused!.message.replace(/^ref \S+ locked for [\d.]+m?s \(since \d.*\):/, 'ref locked:');
    }),
  );
  t.deepEqual(
    told,
    told.map(() => told[0]),
  );
  t.is(told[0], 'ref locked: unavailable');
});

test.serial('labels and edit', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr content ingest one < $DIR/hello
    ctr content label ${hello} k=v other=w
    ctr content ls
    ctr content label ${hello} k= more=1
    ctr content ls
    ctr content label ${hello}
    ctr content label ${zero} k=v
    ctr content label nonsense k=v
    ctr content label
    ctr content label ${hello} k=$LONG > /dev/null; ctr content ls | grep -o 'k=x*' | wc -c
    ctr content label ${hello} k=$LONGER
    ctr content label ${hello} k=
    ctr content ls
    EDITOR=$DIR/vi ctr content edit ${hello}
    ctr content edit --editor $DIR/vi ${hello}
    ctr content edit --editor $DIR/vi --validate json ${hello}
    ctr content edit --editor $DIR/vi ${zero}
    ctr content edit --editor false ${hello}
    ctr content edit --editor nothing-of-the-kind ${hello}
    ctr content ls
    ctr content get $(ctr content ls -q | tail -1)
    ctr content active
  `,
    { env: () => ({ LONG: 'x'.repeat(4095), LONGER: 'x'.repeat(4096) }) },
  );
  t.is(ours, theirs);
});

test.serial('collection: what nothing keeps goes, from the list and from the disk, and no sooner', async (t) => {
  const digest = (n: number) => `$(seq ${n} | sha256sum | cut -c 1-64)`;
  const { ours, theirs } = await both(
    t,
    `
    seq 5 | ctr content ingest one
    seq 6 | ctr content ingest two
    ctr content label sha256:${digest(5)} containerd.io/gc.root=yes
    test -f $BLOBS/${digest(5)} && test -f $BLOBS/${digest(6)}
    ctr leases rm --sync $(ctr leases create --id l)
    ctr content ls
    ${gone(`$BLOBS/${digest(6)}`)}
    test -f $BLOBS/${digest(5)}
    ctr content rm sha256:${digest(5)}
    ctr content ls
    ctr leases rm --sync $(ctr leases create --id l)
    ${gone(`$BLOBS/${digest(5)}`)}
  `,
  );
  t.is(ours, theirs);
});

test.serial('one blob in several namespaces', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    seq 5 > five
    ctr content ingest one < five
    ctr -n $NS-other content ls
    ctr -n $NS-other content ingest one < five
    ctr -n $NS-other content ls
    ctr -n $NS-other content label $(ctr content ls -q) k=v
    ctr content ls
    ctr -n $NS-other content rm $(ctr content ls -q)
    ctr -n $NS-other content ls
    ctr content get $(ctr content ls -q)
    ctr -n $NS-other content get $(ctr content ls -q)
    # What another namespace has is there already: a writer that knows the digest begins at its end.
    ctr -n $NS-other content ingest --expected-size 10 --expected-digest $(ctr content ls -q) two < five
    ctr -n $NS-other content ls
    ctr -n $NS-third content ingest --expected-size 11 --expected-digest $(ctr content ls -q) three < five
    seq 5 | ctr -n $NS-third content ingest --expected-size 10 --expected-digest $(ctr content ls -q) four
    ctr -n $NS-third content ls
    ctr -n $NS-third content active | awk '{ print $1, $2 }' | sort
  `,
  );
  t.is(ours, theirs);
});

rootTest.serial('prune references', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr images import $DIR/oci.tar
    # Lines come in the order of a map, and a second may begin between two.
    ctr content prune references --dry 2>&1 | sed 's/^time="[^"]*" //' | sort
    ctr content ls
    ctr content prune references
    ctr content ls
    ctr images check
    ctr content prune references --async
    ctr images rm --sync example.test/content:1
    ctr content ls
  `,
  );
  t.is(ours, theirs);
});
