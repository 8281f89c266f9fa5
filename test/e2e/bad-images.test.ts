/** Archives and layers that are not what they say: what `ctr images import` tells of them, and that nothing is left. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import test from 'ava';
import { useBoth } from '../helpers/both.ts';
import { sha256, writeOciArchive } from '../helpers/image.ts';
import { type GivenLayer, layoutOf } from '../helpers/layout.ts';
import { rootTest } from '../helpers/privilege.ts';

const both = useBoth(test);
const file = (name: string): string => join(both.fixtures, name);

/** A tar archive by GNU tar, with names as they are given. */
function archive(fill: (dir: string) => void, ...args: readonly string[]): Buffer {
  const dir = mkdtempSync('/tmp/troupe-archive-');
  try {
    fill(dir);
    return execFileSync('tar', [
      '--sort=name',
      '--mtime=@1700000000',
      '--owner=0',
      '--group=0',
      '-C',
      dir,
      '-cPf',
      '-',
      ...args,
    ]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
const good = archive((dir) => writeFileSync(join(dir, 'file'), 'x'.repeat(20_000)), '.');
const evil = (transform: string, fill = (dir: string): void => writeFileSync(join(dir, 'file'), 'evil')): Buffer =>
  archive(fill, `--transform=${transform}`, 'file');
const gzip = 'application/vnd.oci.image.layer.v1.tar+gzip';
const zstd = 'application/vnd.oci.image.layer.v1.tar+zstd';
const spoilt = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(bytes);
  copy.fill(0x55, copy.length >> 1, (copy.length >> 1) + 16);
  return copy;
};
/** A file, then a directory of the same tar: symlinks and what goes through them. */
const through = (target: string): Buffer =>
  Buffer.concat([
    archive((dir) => symlinkSync(target, join(dir, 'link')), 'link').subarray(0, 512),
    evil('s,^file,link/escaped,'),
  ]);

/** What is wrong, and what we say of it: containerd's causes are those of its libraries. */
const layers: Record<string, { readonly given: readonly GivenLayer[]; readonly cause?: RegExp }> = {
  'a gzip layer cut off': {
    given: [{ bytes: gzipSync(good).subarray(0, -20), mediaType: gzip, diffId: sha256(good) }],
    cause: /gzip: unexpected end of file: invalid argument$/m,
  },
  'a gzip layer with garbage inside': {
    given: [{ bytes: spoilt(gzipSync(good)), mediaType: gzip, diffId: sha256(good) }],
    cause: /gzip: .*: invalid argument$/m,
  },
  'a gzip layer that is none': {
    given: [{ bytes: Buffer.from('this is no gzip at all'), mediaType: gzip, diffId: sha256(good) }],
    cause: /unexpected end of the archive at offset 22: invalid argument$/m,
  },
  'a zstd layer cut off': {
    given: [{ bytes: zstdCompressSync(good).subarray(0, -8), mediaType: zstd, diffId: sha256(good) }],
    cause: /zstd: unexpected end of file: invalid argument$/m,
  },
  'a tar layer cut off': {
    given: [{ bytes: good.subarray(0, 3000) }],
    cause: /unexpected end of the archive at offset 3000: invalid argument$/m,
  },
  'a tar layer that is none': {
    given: [{ bytes: Buffer.alloc(4096, 'nonsense ') }],
    cause: /header checksum is wrong at offset 0: invalid argument$/m,
  },
  'an empty layer': { given: [{ bytes: Buffer.alloc(0) }] },
  'a layer with other contents than the config says': {
    given: [{ bytes: good, diffId: sha256(Buffer.from('other')) }],
    cause: /wrong diff id calculated on extraction/,
  },
  'a layer that is missing': {
    given: [{ bytes: good, missing: true }],
    cause: /content (?:digest )?sha256:\w+: not found$/m,
  },
  'a layer under the digest of another': {
    given: [{ bytes: good, digest: sha256(Buffer.from('other')) }],
    cause: /content (?:digest )?sha256:\w+: not found$/m,
  },
  'a layer of an unknown type': {
    given: [{ bytes: good, mediaType: 'application/x-something' }],
    cause: /no processor for media-type "application\/x-something": not implemented$/m,
  },
  'a second layer that fails after a good first': {
    given: [{ bytes: good }, { bytes: good.subarray(0, 3000) }],
    cause: /unexpected end of the archive at offset 3000: invalid argument$/m,
  },
};
/** A layer whose size the manifest has wrong: containerd unpacks it. */
const liars: Record<string, GivenLayer> = {
  longer: { bytes: good, size: 1000 },
  shorter: { bytes: good, size: 1_000_000 },
};
const hostile: Record<string, Buffer> = {
  'names with ..': evil('s,^,../../../../,'),
  'absolute names': evil('s,^,/,'),
  'names through an absolute link': through('/'),
  'names through a link upwards': through('../../../..'),
  'a hard link to the outside': Buffer.concat([
    archive(
      (dir) => {
        writeFileSync(join(dir, 'file'), 'x');
        execFileSync('ln', [join(dir, 'file'), join(dir, 'second')]);
      },
      '--transform=flags=h;s,^file$,../../../../../../etc/hostname,',
      'file',
      'second',
    ),
  ]),
  'a whiteout of ..': evil('s,^file,.wh...,'),
  'a whiteout upwards': evil('s,^file,../.wh.etc,'),
};

test.before(() => {
  for (const [name, layer] of Object.entries(liars))
    writeOciArchive(file(`${name}.tar`), layoutOf([layer]), 'example.test/bad:1');
  for (const [index, { given }] of Object.values(layers).entries())
    writeOciArchive(file(`layers-${index}.tar`), layoutOf(given), 'example.test/bad:1');
  for (const [index, bytes] of Object.values(hostile).entries())
    writeOciArchive(file(`hostile-${index}.tar`), layoutOf([{ bytes }]), 'example.test/hostile:1');
  writeOciArchive(file('good.tar'), layoutOf([{ bytes: good }]), 'example.test/good:1');
  writeOciArchive(file('no-config.tar'), layoutOf([{ bytes: good }], { config: 'missing' }), 'example.test/bad:1');
  writeOciArchive(file('bad-config.tar'), layoutOf([{ bytes: good }], { config: 'garbage' }), 'example.test/bad:1');
  writeFileSync(file('cut.tar'), readFileSync(file('good.tar')).subarray(0, 3000));
  writeFileSync(file('garbage.tar'), Buffer.alloc(10_240, 'nonsense '));
  writeFileSync(file('empty.tar'), '');
  const dir = mkdtempSync('/tmp/troupe-bad-');
  mkdirSync(join(dir, 'x'));
  writeFileSync(
    join(dir, 'manifest.json'),
    JSON.stringify([{ Config: 'nope.json', RepoTags: ['a.test/b:1'], Layers: ['nope/layer.tar'] }]),
  );
  execFileSync('tar', ['-C', dir, '-cf', file('docker-hollow.tar'), 'manifest.json']);
  writeFileSync(join(dir, 'manifest.json'), '{not json');
  execFileSync('tar', ['-C', dir, '-cf', file('docker-garbage.tar'), 'manifest.json']);
  execFileSync('tar', ['-C', dir, '-cf', file('nothing.tar'), 'x']);
  rmSync(dir, { recursive: true });
});

/** What is there afterwards; what no lease and no image keeps is gone first. */
const left = `
  ctr images ls
  ctr snapshots ls
  ctr content active | awk '{ print $1, $2 }'
  ctr leases ls
  ctr images rm --sync $(ctr images ls -q)
  ctr leases rm --sync $(ctr leases create --id collect)
  ctr content ls
  ctr snapshots ls`;

rootTest.serial('archives', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr images import $DIR/does-not-exist.tar
    ctr images import
    ctr images import $DIR/empty.tar
    ctr images import $DIR/garbage.tar
    ctr images import $DIR/cut.tar
    ctr images import $DIR/nothing.tar
    ctr images import $DIR/no-config.tar
    ctr images import $DIR/bad-config.tar
    ctr images import $DIR/docker-hollow.tar
    ctr images import $DIR/docker-garbage.tar
    ${left}
  `,
  );
  t.is(ours, theirs);
});

/** Why a layer could not be unpacked, which either says in words of its own. */
const uncaused = (text: string): string =>
  text.replace(/(failed to extract layer sha256:\w+: ).*?(" key=|$)/gm, '$1CAUSE$2');

for (const [index, [name, { cause }]] of Object.entries(layers).entries()) {
  rootTest.serial(name, async (t) => {
    let said = '';
    const { ours, theirs } = await both(t, `ctr images import $DIR/layers-${index}.tar\n${left}`, {
      plain: (text, side) => {
        if (side === 'ours') said = text;
        return uncaused(text);
      },
    });
    if (cause === undefined) t.notRegex(said, /exit/);
    else t.regex(said, cause);
    t.is(ours, theirs);
  });
}

for (const name of Object.keys(liars)) {
  rootTest.serial(
    `a layer that the manifest says is ${name === 'longer' ? 'shorter' : 'longer'} than it is`,
    async (t) => {
      const namespace = `liar-${name}`;
      const { code, stderr } = await both.daemon.ctr(['images', 'import', file(`${name}.tar`)], { namespace });
      t.is(code, 1);
      t.regex(stderr, /the descriptor says \d+ bytes, the content has 30720: failed precondition$/m);
      t.is((await both.daemon.ctr(['snapshots', 'ls'], { namespace })).stdout.trim(), 'KEY PARENT KIND');
    },
  );
}

for (const [index, name] of Object.keys(hostile).entries()) {
  rootTest.serial(`a layer with ${name} stays inside`, async (t) => {
    const { ours, theirs } = await both(
      t,
      `
      ctr images import $DIR/hostile-${index}.tar
      mkdir m
      ctr images mount example.test/hostile:1 $OUT/m
      (cd m && find . -mindepth 1 -printf '%p %y %m %s %l %n\\n' | sort)
      ctr images unmount --rm $OUT/m
      ${left}
      ls /escaped /file $ROOT/.. | grep -e escaped -e '^file'
    `,
      { plain: uncaused },
    );
    t.is(ours, theirs);
  });
}
