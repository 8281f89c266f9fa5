/**
 * The reader against Go's archive/tar, which is what images were made with: same entries or both refuse, for Go's own test archives, for ours, and for
 * random damage of both. Skipped where there is no Go.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from 'troupe/plugin';
import { unlessLacking } from '../../../test/helpers/privilege.ts';
import { archive, base256, entry, header, pax } from './craft.ts';
import type { TarHeader } from './format.ts';
import { TarReader } from './reader.ts';

/** Reads names of archives from stdin, answers one line of JSON for each. */
const program = `package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type item struct {
	Flag, Name, Link, Hash   string
	Mode, Uid, Gid, Sec, Nsec, Major, Minor int64
	Xattrs                   map[string]string
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		file, _ := os.Open(lines.Text())
		reader := tar.NewReader(bufio.NewReaderSize(file, 1<<20))
		items := []item{}
		failure := ""
		for {
			h, err := reader.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				failure = err.Error()
				break
			}
			if h.Typeflag == 'g' {
				items = append(items, item{Flag: "g"})
				continue
			}
			hash := sha256.New()
			if _, err := io.Copy(hash, reader); err != nil {
				failure = err.Error()
				break
			}
			xattrs := map[string]string{}
			for k, v := range h.PAXRecords {
				if len(k) > 13 && k[:13] == "SCHILY.xattr." {
					xattrs[fmt.Sprintf("%x", k[13:])] = fmt.Sprintf("%x", v)
				}
			}
			items = append(items, item{
				string(rune(h.Typeflag)), fmt.Sprintf("%x", h.Name), fmt.Sprintf("%x", h.Linkname), fmt.Sprintf("%x", hash.Sum(nil)),
				h.Mode, int64(h.Uid), int64(h.Gid), h.ModTime.Unix(), int64(h.ModTime.Nanosecond()), h.Devmajor, h.Devminor, xattrs,
			})
		}
		file.Close()
		out, _ := json.Marshal(map[string]any{"items": items, "failure": failure})
		fmt.Println(string(out))
	}
}
`;

interface Item {
  Flag: string;
  Name: string;
  Link: string;
  Hash: string;
  Mode: number;
  Uid: number;
  Gid: number;
  Sec: number;
  Nsec: number;
  Major: number;
  Minor: number;
  Xattrs: Record<string, string>;
}

const hasGo = spawnSync('go', ['version']).status === 0;
const goTest = unlessLacking(() => (hasGo ? undefined : 'go, which is not installed'));

/** Both sides as comparable lines; type 0, NUL and 7 are one, as is the sparse flag, which Go leaves as it is. */
function line(item: Item): string {
  if (item.Flag === 'g') return 'g';
  const flag = ['\0', '7', 'S'].includes(item.Flag) ? '0' : item.Flag;
  const xattrs = Object.entries(item.Xattrs ?? {}).sort();
  return JSON.stringify([
    flag,
    item.Name,
    item.Link,
    item.Hash,
    item.Mode,
    item.Uid,
    item.Gid,
    item.Sec,
    item.Nsec,
    item.Major,
    item.Minor,
    xattrs,
  ]);
}

function ours(bytes: Buffer): { lines: string[]; failure: string } {
  const lines: string[] = [];
  let current: TarHeader | undefined;
  let hash = createHash('sha256');
  let position = 0;
  const zeros = Buffer.alloc(1 << 16);
  const fill = (to: number): void => {
    // A sparse file of petabytes is told by its header alone.
    for (; position < to; position += Math.min(zeros.length, to - position))
      hash.update(zeros.subarray(0, Math.min(zeros.length, to - position)));
  };
  const reader = new TarReader({
    entry(header) {
      current = header;
      hash = createHash('sha256');
      position = 0;
    },
    data(part, at) {
      fill(at);
      hash.update(part);
      position = at + part.length;
    },
    end() {
      const header = current!;
      fill(header.size);
      const hex = (text: string): string => Buffer.from(text, 'latin1').toString('hex');
      lines.push(
        line({
          Flag: header.typeFlag === '\0' && header.type === 'directory' ? '5' : header.typeFlag,
          Name: header.name.toString('hex'),
          Link: header.linkName.toString('hex'),
          Hash: hash.digest('hex'),
          Mode: header.mode,
          Uid: header.uid,
          Gid: header.gid,
          Sec: header.mtime.seconds,
          Nsec: header.mtime.nanoseconds,
          Major: header.devMajor,
          Minor: header.devMinor,
          Xattrs: Object.fromEntries([...header.xattrs].map(([key, value]) => [hex(key), value.toString('hex')])),
        }),
      );
    },
  });
  try {
    reader.push(bytes);
    reader.finish();
    return { lines, failure: '' };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return { lines, failure: error.message };
  }
}

/** Where we refuse what Go reads, on purpose; the reader's header comment says why. */
const stricter = [
  /extension header without an entry/,
  /NUL inside/,
  /too many extension headers/,
  /out of range/,
  /is too long/,
  /sparse format .* is unknown/,
  /not base64/,
];

function samples(): Record<string, Buffer> {
  const samples: Record<string, Buffer> = {};
  const folder = join(execFileSync('go', ['env', 'GOROOT'], { encoding: 'utf8' }).trim(), 'src/archive/tar/testdata');
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(join(folder, name));
    if (name.endsWith('.tar')) samples[name] = bytes;
    if (name.endsWith('.tar.base64') && !name.includes('big')) samples[name] = Buffer.from(bytes.toString(), 'base64');
  }
  samples['all dialects'] = archive(
    entry({ name: 'ustar', body: 'x', patch: { 345: 'pre/fix' } }),
    entry({ name: 'gnu', magic: 'ustar  \0', body: 'y', patch: { 345: '00000000144\0' } }),
    entry({ name: 'v7', magic: '\0\0\0\0\0\0\0\0', type: '\0' }),
    entry({ name: 'star', patch: { 508: 'tar\0', 345: 'p' } }),
    header({ name: 'link', type: '1', link: 'ustar', size: 512 }),
    header({ name: 'null', type: '3', devMajor: 1, devMinor: 3 }),
    pax({ path: 'p/ä', mtime: '1.000000001', uid: '3000000', 'SCHILY.xattr.user.a': 'b' }),
    entry({ uid: base256(70_000n, 8), body: 'z'.repeat(600) }),
    pax({ comment: 'g' }, 'g'),
    entry({ name: 'L', type: 'L', body: 'long name\0', magic: 'ustar  \0' }),
    entry({ magic: 'ustar  \0' }),
  );
  return samples;
}

function damaged(bytes: Buffer, random: (limit: number) => number): Buffer {
  const copy = Buffer.from(bytes);
  const blocks = Math.floor(copy.length / 512);
  for (let hits = 1 + random(3); hits > 0; hits--) {
    // Mostly in headers, where it matters; the alphabet is what numbers and records are made of.
    const at = random(blocks) * 512 + random(512);
    copy[at] = random(2) === 0 ? '0123456789 \0=\n\x80\xff'.charCodeAt(random(16)) : random(256);
  }
  for (let at = 0; at + 512 <= copy.length; at += 512) {
    const block = copy.subarray(at, at + 512);
    if (block.toString('latin1', 257, 262) !== 'ustar') continue;
    block.write('        ', 148, 'latin1');
    block.write(
      `${block
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
      'latin1',
    );
  }
  return random(10) === 0 ? copy.subarray(0, random(copy.length)) : copy;
}

goTest('the same entries as Go, or both refuse', (t) => {
  const folder = mkdtempSync('/dev/shm/troupe-tar-');
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'main.go'), program);
  execFileSync('go', ['build', '-o', join(folder, 'list'), join(folder, 'main.go')], {
    env: { ...process.env, GO111MODULE: 'off' },
  });

  const inputs = new Map<string, Buffer>(Object.entries(samples()));
  let seed = 20_240_607;
  const random = (limit: number): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * limit);
  };
  for (const [name, bytes] of [...inputs]) {
    if (bytes.length > 200_000) continue;
    for (let i = 0; i < 20; i++) inputs.set(`${name} damaged ${i}`, damaged(bytes, random));
  }
  const paths = [...inputs].map(([, bytes], i) => {
    const path = join(folder, `${i}.tar`);
    writeFileSync(path, bytes);
    return path;
  });
  const answers = execFileSync(join(folder, 'list'), {
    input: `${paths.join('\n')}\n`,
    maxBuffer: 1 << 28,
    encoding: 'utf8',
  })
    .trim()
    .split('\n')
    .map((answer) => JSON.parse(answer) as { items: Item[]; failure: string });

  let compared = 0;
  for (const [i, [name, bytes]] of [...inputs].entries()) {
    const go = answers[i]!;
    const mine = ours(bytes);
    if (mine.failure !== '' && stricter.some((reason) => reason.test(mine.failure))) continue;
    compared++;
    t.is(mine.failure !== '', go.failure !== '', `${name}: ours "${mine.failure}", Go "${go.failure}"`);
    if (mine.failure === '' && go.failure === '') t.deepEqual(mine.lines, go.items.map(line), name);
  }
  t.true(compared > 600, `${compared} archives were compared`);
});
