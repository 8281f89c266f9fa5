/** `ctr images` but for registries: import, list, check, tag, label, mount, export, convert, remove. */
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { useBoth } from '../helpers/both.ts';
import { imageLayout, type Layout, upperLayer, writeDockerArchive, writeOciArchive } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';

const both = useBoth(test);
const file = (name: string): string => join(both.fixtures, name);

/** A root of a few files: no test here runs one. */
function baseLayer(dir: string): void {
  for (const name of ['etc', 'tmp/deep', 'bin', 'run/old']) mkdirSync(join(dir, name), { recursive: true });
  writeFileSync(join(dir, 'etc/hosts'), '127.0.0.1 localhost\n');
  writeFileSync(join(dir, 'tmp/deep/file'), 'hidden by the second layer\n');
  writeFileSync(join(dir, 'run/old/file'), 'in a directory that the third layer replaces\n');
  writeFileSync(join(dir, 'bin/tool'), '#!/bin/sh\n', { mode: 0o755 });
  linkSync(join(dir, 'bin/tool'), join(dir, 'bin/other'));
  symlinkSync('../etc/hosts', join(dir, 'bin/link'));
}
function thirdLayer(dir: string): void {
  mkdirSync(join(dir, 'run/old'), { recursive: true });
  writeFileSync(join(dir, 'run/old/.wh..wh..opq'), '');
  writeFileSync(join(dir, 'run/old/new'), 'alone\n');
  writeFileSync(join(dir, 'etc-is-a-file'), '');
}
const layers = [baseLayer, upperLayer, thirdLayer];
const platforms = ['linux/amd64', 'linux/arm64'];
const multi = imageLayout({ layers, platforms });

/** A layout without what belongs to the second platform alone, as registries' clients keep them. */
function halved(layout: Layout): Layout {
  const other = imageLayout({ layers, platforms: ['linux/arm64'] });
  const own = imageLayout({ layers, platforms: ['linux/amd64'] });
  return {
    ...layout,
    blobs: new Map([...layout.blobs].filter(([digest]) => own.blobs.has(digest) || !other.blobs.has(digest))),
  };
}

test.before(() => {
  writeOciArchive(file('oci.tar'), imageLayout({ layers }), 'example.test/app:1');
  writeOciArchive(file('zstd.tar'), imageLayout({ layers, compression: 'zstd' }), 'example.test/zstd:1');
  writeOciArchive(file('plain.tar'), imageLayout({ layers, compression: 'none' }), 'example.test/plain:1');
  writeOciArchive(file('multi.tar'), multi, 'example.test/multi:1');
  writeOciArchive(file('half.tar'), halved(multi), 'example.test/half:1');
  writeOciArchive(file('foreign.tar'), imageLayout({ layers, platforms: ['linux/s390x'] }), 'example.test/foreign:1');
  writeDockerArchive(file('docker.tar'), { layers, name: 'example.test/docker:1' });
});

/** What an import, or a removal, leaves to be seen of a namespace. */
const show = `
  ctr images ls
  ctr images check
  ctr content ls
  ctr snapshots ls`;

for (const name of ['oci', 'docker', 'zstd', 'plain', 'multi', 'half', 'foreign']) {
  rootTest.serial(`import of ${name}, and again`, async (t) => {
    const { ours, theirs } = await both(
      t,
      `
      ctr images import $DIR/${name}.tar
      ${show}
      ctr images ls -q
      ctr images check -q
      ctr snapshots tree
      ctr snapshots usage -b
      ctr content active
      ctr images import - < $DIR/${name}.tar
      ctr images ls
      ctr content ls
      ctr leases ls
    `,
    );
    if (name !== 'foreign') t.regex(ours, /^example\.test\/\w+:1 application\/vnd\..* complete \(4\/4\)/m);
    t.is(ours, theirs);
  });
}

const flags: Record<string, readonly string[]> = {
  multi: [
    '--no-unpack',
    '--all-platforms',
    '--all-platforms --no-unpack',
    '--platform linux/arm64',
    '--platform linux/arm64 --no-unpack',
    '--platform linux/riscv64',
    '--platform nonsense/x/y/z',
    '--index-name example.test/kept:9',
    '--base-name example.test/multi --digests',
    '--base-name other.test/x',
    '--digests',
    '--snapshotter native',
    '--snapshotter nope',
  ],
  docker: [
    '--no-unpack',
    '--all-platforms --no-unpack',
    '--platform linux/arm64',
    '--base-name example.test/docker --digests',
    '--base-name example.test/docker --digests --skip-digest-for-named',
    '--compress-blobs',
  ],
  half: ['--all-platforms --no-unpack', '--platform linux/arm64 --no-unpack', '--platform linux/amd64'],
};
for (const [name, variants] of Object.entries(flags)) {
  for (const variant of variants) {
    rootTest.serial(`import of ${name} with ${variant}`, async (t) => {
      const { ours, theirs } = await both(
        t,
        `
        ctr images import ${variant} $DIR/${name}.tar
        ${show}${variant.includes('native') ? '\n  ctr snapshots --snapshotter native ls' : ''}
      `,
      );
      t.is(ours, theirs);
    });
  }
}

rootTest.serial('mount, unmount', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    mkdir m rw n
    ctr images import $DIR/oci.tar
    ctr images mount example.test/app:1 $OUT/m
    (cd m && find . -mindepth 1 \\( -type d -printf '%p %y %m %U:%G %T@\\n' -o -printf '%p %y %m %U:%G %s %T@ %n %l\\n' \\) | sort)
    cat m/etc/motd m/run/old/new
    echo x > m/x
    ctr images mount example.test/app:1 $OUT/m
    ctr images mount --rw example.test/app:1 $OUT/rw
    echo changed > rw/etc/motd && rm rw/bin/tool && cat rw/etc/motd && ls rw/bin
    ctr snapshots ls
    ctr leases ls | wc -l
    ctr images mount nope $OUT/n
    ctr images mount example.test/app:1
    ctr images mount --platform linux/arm64 example.test/app:1 $OUT/n
    ctr images mount --snapshotter native example.test/app:1 $OUT/n
    ctr snapshots --snapshotter native ls
    ctr images unmount --snapshotter native --rm $OUT/n
    ctr snapshots --snapshotter native ls
    ctr images unmount $OUT/m
    ctr snapshots ls
    ctr images unmount --rm $OUT/m
    ctr images unmount --rm $OUT/rw
    ctr images unmount --rm $OUT/nowhere
    ctr images unmount
    ctr snapshots ls
    ctr leases ls | wc -l
    ls m rw n
  `,
  );
  t.is(ours, theirs);
});

rootTest.serial('tag, label, filters, rm', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr images import $DIR/oci.tar
    ctr images import --no-unpack $DIR/multi.tar
    ctr images tag example.test/app:1 example.test/app:2 example.test/other:1
    ctr images tag example.test/app:1 example.test/app:2
    ctr images tag --force example.test/multi:1 example.test/app:2
    ctr images tag example.test/nope:1 example.test/app:3
    ctr images tag example.test/app:1
    ctr images tag
    ctr images ls
    ctr images label example.test/app:1 k=v other=w
    ctr images label example.test/app:1 k= more=1
    ctr images ls
    ctr images label --replace-all example.test/app:1 only=this
    ctr images label example.test/app:1
    ctr images label example.test/nope:1 k=v
    ctr images label example.test/app:1 k=$LONG > /dev/null
    ctr images label example.test/app:1 k=$LONGER
    ctr images label example.test/app:1 k=
    ctr images label
    ctr images ls
    ctr images ls name==example.test/app:1
    ctr images ls -q 'name~=^example.test/app'
    ctr images ls -q labels.only==this name~=multi
    ctr images ls -q 'target.mediatype~=index'
    ctr images ls -q labels.nothing
    ctr images ls '('
    ctr images check name==example.test/app:2
    ctr images rm example.test/nope:1
    ctr images rm example.test/app:1 example.test/nope:1 example.test/app:2
    ctr images rm
    ctr images ls
    ctr images check
    ctr images rm --sync example.test/nope:1
    ctr images rm --sync example.test/other:1 example.test/multi:1
    ${show}
  `,
    { env: () => ({ LONG: 'y'.repeat(4095), LONGER: 'y'.repeat(4096) }) },
  );
  t.regex(ours, /ctr: .*example\.test\/nope:1.*: not found\nexit 1\n/);
  t.is(ours, theirs);
});

// Layers of no other test, so that nobody else keeps them.
rootTest.serial(
  'rm --sync takes blobs and snapshots from the disk, and only those that nothing else needs',
  async (t) => {
    const own = (name: string) => (dir: string) => writeFileSync(join(dir, name), name);
    const shared = own('shared');
    writeOciArchive(file('a.tar'), imageLayout({ layers: [shared, own('a')] }), 'example.test/a:1');
    writeOciArchive(file('b.tar'), imageLayout({ layers: [shared, own('b')] }), 'example.test/b:1');
    const { ours, theirs } = await both(
      t,
      `
    # What an earlier test left to be collected may go at any time: only what came with these two counts.
    ls $BLOBS > old-blobs; ls $SNAPSHOTS > old-snapshots
    ctr images import $DIR/a.tar
    ctr images import $DIR/b.tar
    ls $BLOBS | comm -13 old-blobs - > blobs; ls $SNAPSHOTS | comm -13 old-snapshots - > snapshots
    ctr images rm --sync example.test/a:1
    ctr images check
    ctr content ls
    ctr snapshots ls
    # What goes: one layer of three, one manifest and config of two, and the archives' own indexes, which nothing keeps after the import.
    until test $(ls $BLOBS | comm -12 - blobs | wc -l) = 4; do ctr version > null 2>&1; done
    until test $(ls $SNAPSHOTS | comm -12 - snapshots | wc -l) = 2; do ctr version > null 2>&1; done
    ctr snapshots prepare holds $(ctr snapshots ls | awk '$3 == "Committed" { print $1 }')
    ctr images rm --sync example.test/b:1
    ctr content ls
    ctr snapshots ls | sed 's/sha256:[0-9a-f]*/DIGEST/g'
    ctr snapshots rm holds
    ctr leases rm --sync $(ctr leases create --id collect)
    ctr snapshots ls
    until test $(ls $BLOBS | comm -12 - blobs | wc -l)-$(ls $SNAPSHOTS | comm -12 - snapshots | wc -l) = 0-0; do ctr version > null 2>&1; done
  `,
    );
    t.notRegex(ours, /exit/);
    t.is(ours, theirs);
  },
);

rootTest.serial('export, and what it holds imported again', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr images import $DIR/oci.tar
    ctr images import --all-platforms --no-unpack $DIR/multi.tar
    ctr images import $DIR/docker.tar
    ctr images export app.tar example.test/app:1
    tar tvf app.tar
    sha256sum < app.tar
    ctr -n $NS-app images import app.tar
    ctr -n $NS-app images ls
    ctr -n $NS-app content ls -q
    ctr images export docker.tar example.test/docker:1
    tar xOf docker.tar manifest.json
    ctr -n $NS-docker images import docker.tar
    ctr -n $NS-docker images ls
    ctr -n $NS-docker images check
    ctr images export --all-platforms multi.tar example.test/multi:1
    tar tf multi.tar
    ctr -n $NS-multi images import --all-platforms multi.tar
    ctr -n $NS-multi images ls
    ctr images export --platform linux/arm64 arm.tar example.test/multi:1
    tar tf arm.tar
    ctr images export several.tar example.test/app:1 example.test/multi:1 example.test/docker:1
    tar xOf several.tar index.json
    ctr -n $NS-several images import --no-unpack several.tar
    ctr -n $NS-several images ls
    ctr images export --skip-manifest-json --skip-non-distributable - example.test/app:1 | tar t
    ctr images export nope.tar example.test/nope:1
    ls nope.tar
    ctr images export nope.tar
    ctr images export $OUT/no/such/directory example.test/app:1
    ctr images export --platform linux/s390x s390x.tar example.test/multi:1
    ctr leases ls
    skopeo inspect --raw oci-archive:app.tar | sha256sum
  `,
  );
  t.is(ours, theirs);
});

rootTest.serial('convert', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr images import $DIR/oci.tar
    ctr images import $DIR/docker.tar
    ctr images import --all-platforms --no-unpack $DIR/multi.tar
    ctr images convert --uncompress example.test/app:1 example.test/app:plain
    ctr images convert --oci example.test/docker:1 example.test/docker:oci
    ctr images convert --uncompress --oci example.test/docker:1 example.test/docker:both
    ctr images convert --uncompress --all-platforms example.test/multi:1 example.test/multi:plain
    ctr images convert --uncompress --platform linux/arm64 example.test/multi:1 example.test/multi:arm
    ctr images convert --uncompress example.test/app:1 example.test/app:plain
    ctr images convert --oci example.test/nope:1 example.test/app:x
    ctr images convert --uncompress example.test/app:1
    ctr images convert example.test/app:1 example.test/app:same
    ctr images ls
    ctr images check name==example.test/app:plain name==example.test/docker:both
    ctr content ls
    ctr content active
    ctr leases ls
    ctr snapshots ls
    ctr snapshots unpack $(ctr images ls | awk '$1 == "example.test/app:plain" { print $3 }')
    ctr snapshots ls
  `,
  );
  t.is(ours, theirs);
});
