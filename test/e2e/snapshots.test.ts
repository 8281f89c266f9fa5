/** `ctr snapshots`, with overlayfs and with native, and their mounts as a shell makes them. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { useBoth } from '../helpers/both.ts';
import { imageLayout, upperLayer, writeOciArchive } from '../helpers/image.ts';
import { layoutOf } from '../helpers/layout.ts';
import { rootTest } from '../helpers/privilege.ts';

const both = useBoth(test);

test.before(() => {
  const base = (dir: string): void => {
    mkdirSync(join(dir, 'etc'));
    writeFileSync(join(dir, 'etc/hosts'), 'of the snapshots test\n');
    mkdirSync(join(dir, 'tmp'));
  };
  writeOciArchive(join(both.fixtures, 'oci.tar'), imageLayout({ layers: [base, upperLayer] }), 'example.test/snap:1');
});

/** All of a tree but its root's own time, and what marks of removals take of directories. */
const tree = (key: string): string =>
  `(cd $OUT/${key} && find . -mindepth 1 \\( -type d -printf '%p %y %m %U:%G %T@\\n' -o -printf '%p %y %m %U:%G %s %T@ %l\\n' \\) | sort)`;

/** `mount | sh` puts a snapshot where a script can write. */
const mount = (key: string): string => `mkdir -p $OUT/${key} && ctr snapshots mounts $OUT/${key} ${key} | sh`;

rootTest.serial('prepared, written, committed, seen, removed', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr snapshots ls
    ctr snapshots prepare a
    ctr snapshots prepare a
    ctr snapshots mounts /m a
    ctr snapshots info a
    ${mount('a')}
    echo one > $OUT/a/one; mkdir $OUT/a/d; echo two > $OUT/a/d/two; ln -s one $OUT/a/s; head -c 100000 /dev/zero > $OUT/a/z
    ctr snapshots usage
    ctr snapshots usage -b
    ctr snapshots usage -b a
    ctr snapshots usage nope
    umount $OUT/a
    ctr snapshots commit A a
    ctr snapshots commit A a
    ctr snapshots commit B a
    ctr snapshots usage -b
    ctr snapshots info A
    ctr snapshots info a
    ctr snapshots ls
    ctr snapshots tree
    ctr snapshots mounts /m A
    ctr snapshots view v A
    ctr snapshots mounts /m v
    ctr snapshots view v A
    ctr snapshots view v2 nope
    ctr snapshots view a
    ctr snapshots commit V v
    ctr snapshots prepare b A
    ctr snapshots prepare c b
    ${mount('b')}
    ls -lR --time-style=+ $OUT/b
    rm -r $OUT/b/d; echo changed > $OUT/b/one; mkfifo $OUT/b/fifo; mknod $OUT/b/null c 1 3
    umount $OUT/b
    ctr snapshots commit B b
    ctr snapshots prepare c B
    ctr snapshots mounts /m c
    ${mount('c')}
    ls -lR --time-style=+ $OUT/c
    umount $OUT/c
    ctr snapshots ls
    ctr snapshots tree
    ctr snapshots usage -b
    ctr snapshots rm A
    ctr snapshots rm nope
    ctr snapshots rm
    ctr snapshots rm c nope B
    ctr snapshots rm B v a A
    ctr snapshots ls
    ctr snapshots prepare
    ctr snapshots commit x
    ctr snapshots commit x nope
    ctr snapshots prepare x ''
    ctr snapshots view y ''
    ctr snapshots rm x y
  `,
  );
  t.is(ours, theirs);
});

rootTest.serial('labels', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr snapshots prepare a
    ctr snapshots label a k=v other=w
    ctr snapshots info a
    ctr snapshots label a k= more=1
    ctr snapshots info a
    ctr snapshots label a
    ctr snapshots label nope k=v
    ctr snapshots label a k=$LONG
    ctr snapshots label a k=$LONGER
    ctr snapshots label a k=
    ctr snapshots info a
    ctr snapshots ls
    ctr snapshots rm a
    ctr snapshots prepare --target x y
    ctr snapshots info y
    ctr snapshots prepare -t sha256:0000 y2
    ctr snapshots rm y y2
  `,
    { env: () => ({ LONG: 'x'.repeat(4095), LONGER: 'x'.repeat(4096) }) },
  );
  t.is(ours, theirs);
});

rootTest.serial('mounts as JSON and as commands', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr snapshots prepare --mounts a
    ctr snapshots prepare --mounts $OUT/target a2
    ctr snapshots commit A a
    ctr snapshots view --mounts v A
    ctr snapshots prepare b A
    ctr snapshots commit B b
    ctr snapshots view --mounts w B
    ctr snapshots prepare --mounts c B
    ctr snapshots mounts /x nope
    ctr snapshots mounts /x
    ctr snapshots rm c w v B a2 A
  `,
  );
  t.is(ours, theirs);
});

/** A base of files, and on top of it snapshot `b` that changes each in its way. All is of one time, that of a tar archive that has none. */
const differing = `
    ctr snapshots prepare a
    ${mount('a')}
    cd $OUT/a; echo one > one; mkdir -m 700 d; echo two > d/two; ln one hard; ln -s one soft; mkdir gone; echo x > gone/x; mkdir -p deep/er; echo y > deep/er/y; \
      find . -exec touch -h -d @1700000000 {} +
    umount $OUT/a
    ctr snapshots commit A a
    ctr snapshots prepare b A
    ${mount('b')}
    cd $OUT/b; rm one; rm -r d gone; mkdir d; echo new > d/new; chmod 4711 hard; ln -sf hard soft; mkfifo fifo; mknod null c 1 3; echo z > deep/er/z; \
      chown 12:34 deep/er; find . -exec touch -h -d @1700000001 {} +
    umount $OUT/b
`;
const tar = 'application/vnd.oci.image.layer.v1.tar';

rootTest.serial('diff', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ${differing}
    ctr snapshots diff b | zcat | tar tv | grep -v -F .wh.
    ctr snapshots diff A b | zcat | tar tv | grep -v -F .wh.
    ctr snapshots diff --media-type ${tar} A b | tar tv | grep -v -F .wh.
    ctr snapshots diff --media-type ${tar} A | tar tv
    ctr snapshots diff --media-type ${tar}+gzip b | gzip -t
    ctr snapshots diff nope
    ctr snapshots diff A nope
    ctr snapshots diff
    # Without --keep it is gone with the lease of the command.
    ctr leases rm --sync $(ctr leases create --id collect)
    ctr content ls
    ctr leases ls
    ctr snapshots ls
    ctr snapshots diff --keep --ref kept --label k=v --media-type ${tar} A > A.tar
    ctr leases rm --sync $(ctr leases create --id collect)
    ctr content get $(ctr content ls -q) | cmp - A.tar
    ctr content ls | sed 's/sha256:[0-9a-f]*/DIGEST/'
    ctr content active
    ctr leases ls
    ctr snapshots commit B b
    ctr snapshots diff --media-type ${tar} B | tar tv | grep -v -F .wh.
    ctr snapshots rm B A
  `,
  );
  t.is(ours, theirs);
});

// An overlay's opaque directory is one mark here, a mark for each name in containerd: what either stands for must be the same, to both.
rootTest.serial('a difference of either becomes the same tree in both', async (t) => {
  const made: Record<string, { diff: Buffer; tree: string }> = {};
  const { ours } = await both(
    t,
    `
    ${differing}
    ctr snapshots diff --media-type ${tar} A > $DIR/$SIDE-A.tar
    ctr snapshots diff --media-type ${tar} b > $DIR/$SIDE-b.tar
    ${mount('b')}
    ${tree('b')} > $DIR/$SIDE-tree
    umount $OUT/b
    ctr snapshots rm b A
  `,
    { env: (side) => ({ SIDE: side }) },
  );
  t.notRegex(ours, /exit/);
  const sides = ['ours', 'theirs'].filter((side) => existsSync(join(both.fixtures, `${side}-tree`)));
  for (const side of sides) {
    const read = (name: string): Buffer => readFileSync(join(both.fixtures, `${side}-${name}`));
    made[side] = { diff: read('b.tar'), tree: read('tree').toString() };
    t.regex(made[side].tree, /^\.\/hard f 4711 0:0 4/m);
    t.is(made[side].tree, made.ours!.tree);
    writeOciArchive(
      join(both.fixtures, `${side}.tar`),
      layoutOf([{ bytes: read('A.tar') }, { bytes: read('b.tar') }]),
      `example.test/${side}:1`,
    );
  }
  for (const side of sides) {
    const { ours, theirs } = await both(
      t,
      `
      ctr images import $DIR/${side}.tar
      ctr snapshots view v $(ctr snapshots ls | awk '$3 == "Committed" { print $1 }')
      ${mount('v')}
      ${tree('v')} > tree
      diff tree $DIR/${side}-tree
      umount $OUT/v
      ctr images rm --sync example.test/${side}:1
    `,
    );
    t.notRegex(ours, /exit/);
    t.is(ours, theirs);
  }
});

rootTest.serial('unpack, by both snapshotters, and what images keep of it', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr images import --no-unpack $DIR/oci.tar
    ctr snapshots ls
    ctr snapshots unpack $(ctr images ls | awk 'NR==2 { print $3 }')
    ctr snapshots ls
    ctr snapshots unpack $(ctr images ls | awk 'NR==2 { print $3 }')
    ctr snapshots unpack sha256:0000000000000000000000000000000000000000000000000000000000000000
    ctr snapshots unpack nonsense
    ctr snapshots unpack
    ctr snapshots --snapshotter native unpack $(ctr images ls | awk 'NR==2 { print $3 }')
    ctr snapshots --snapshotter native ls
    ctr snapshots --snapshotter native unpack --snapshotter native $(ctr images ls | awk 'NR==2 { print $3 }')
    ctr snapshots --snapshotter native ls
    ctr snapshots --snapshotter native usage -b
    ctr snapshots --snapshotter native view v $(ctr snapshots --snapshotter native ls | awk 'NR==3 { print $1 }')
    ctr snapshots --snapshotter native mounts /m v
    ctr snapshots --snapshotter native mounts /m v | sed -n 's/.* \\(\\/.*\\) \\/m .*/\\1/p'
    ctr snapshots view v $(ctr snapshots ls | awk 'NR==3 { print $1 }')
    ${mount('v')}
    ${tree('v')}
    umount $OUT/v
    ctr content ls
    ctr images check
    ctr images rm --sync example.test/snap:1
    ctr snapshots ls
    ctr snapshots --snapshotter native ls
    ctr content ls
    ctr snapshots rm v
    ctr snapshots --snapshotter native rm v
    ctr leases rm --sync $(ctr leases create)
    ctr snapshots ls
    ctr snapshots --snapshotter native ls
  `,
  );
  t.is(ours, theirs);
});

rootTest.serial('unknown snapshotters, odd keys, namespaces, and the native one', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr snapshots --snapshotter nope ls
    ctr snapshots --snapshotter nope prepare a
    ctr snapshots --snapshotter nope info a
    ctr snapshots --snapshotter nope rm a
    ctr snapshots --snapshotter nope usage
    ctr snapshots --snapshotter nope mounts /m a
    ctr -n '' snapshots ls
    ctr -n '' snapshots prepare a
    ctr -n '' snapshots usage x
    ctr -n a..b snapshots ls
    ctr -n a..b snapshots prepare a
    ctr snapshots prepare "key with spaces and /slashes/ and é"
    ctr snapshots prepare $NS/1/x
    ctr snapshots ls
    ctr snapshots rm "key with spaces and /slashes/ and é" $NS/1/x
    ctr snapshots prepare same
    ctr -n $NS-other snapshots prepare same
    ctr -n $NS-other snapshots ls
    ctr -n $NS-other snapshots rm same
    ctr snapshots ls
    ctr snapshots rm same
    ctr snapshots --snapshotter native prepare n
    ctr snapshots --snapshotter native mounts /m n
    ctr snapshots --snapshotter native commit N n
    ctr snapshots --snapshotter native view w N
    ctr snapshots --snapshotter native mounts /m w
    ctr snapshots --snapshotter native ls
    ctr snapshots --snapshotter native rm N
    ctr snapshots --snapshotter native rm w N
    ctr snapshots prepare big; ctr snapshots prepare big2; ctr snapshots ls
    ctr snapshots rm big big2
  `,
  );
  t.is(ours, theirs);
});
