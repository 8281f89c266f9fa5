/**
 * Layers that try to get out of their root, or look like it. Names in capitals follow the list in containerd's own tests. For tests: what becomes of them is
 * said here once, and held against us and against a containerd that is installed.
 */

import type { Crafted } from '../tar/craft.ts';

/** What stands in the root before; each is a path and its content, a directory (null), or a link. */
export type Before = Record<string, string | null | { symlink: string } | { link: string }>;

export interface Breakout {
  readonly before?: Before;
  readonly entries: readonly Crafted[];
  /** Refused with InvalidArgument and this in its message. */
  readonly refused?: RegExp;
  /** Paths that must have this content. */
  readonly content?: Readonly<Record<string, string>>;
  readonly missing?: readonly string[];
  /** Two names of one inode, or of two. */
  readonly same?: readonly [string, string];
  readonly different?: readonly [string, string];
  /** Symbolic links and what they say. */
  readonly links?: Readonly<Record<string, string>>;
}

const dir = (name: string, mode = 0o755): Crafted => ({ name, type: '5', mode });
const file = (name: string, body: string, mode = 0o644): Crafted => ({ name, body, mode });
const symlink = (link: string, name: string): Crafted => ({ name, type: '2', link, mode: 0o777 });
const link = (target: string, name: string): Crafted => ({ name, type: '1', link: target, mode: 0o777 });

const users: Before = { etc: null, 'etc/passwd': 'all users' };
const inside = [dir('etc', 0o770), file('/etc/passwd', 'inside')];

export const breakouts: Readonly<Record<string, Breakout>> = {
  SymlinkAbsolute: {
    entries: [dir('etc'), symlink('/etc', 'localetc'), file('/localetc/unbroken', 'unbroken')],
    content: { 'etc/unbroken': 'unbroken' },
  },
  SymlinkUpAndOut: {
    entries: [dir('etc'), dir('dummy'), symlink('/dummy/../etc', 'localetc'), file('/localetc/unbroken', 'unbroken')],
    content: { 'etc/unbroken': 'unbroken' },
  },
  SymlinkMultipleAbsolute: {
    entries: [
      dir('etc'),
      dir('dummy'),
      symlink('/etc', '/dummy/etc'),
      symlink('/dummy/etc', 'localetc'),
      file('/dummy/etc/unbroken', 'unbroken'),
    ],
    content: { 'etc/unbroken': 'unbroken' },
  },
  SymlinkMultipleRelative: {
    entries: [
      dir('etc'),
      dir('dummy'),
      symlink('/etc', '/dummy/etc'),
      symlink('./dummy/etc', 'localetc'),
      file('/localetc/unbroken', 'unbroken'),
    ],
    content: { 'etc/unbroken': 'unbroken' },
  },
  SymlinkEmptyFile: {
    entries: [dir('etc'), file('etc/emptied', 'notempty'), symlink('/etc', 'localetc'), file('/localetc/emptied', '')],
    content: { 'etc/emptied': '' },
  },
  HardlinkRelative: {
    entries: [
      ...inside,
      dir('breakouts'),
      symlink('../../etc', 'breakouts/d1'),
      link('/breakouts/d1/passwd', 'breakouts/mypasswd'),
    ],
    same: ['breakouts/mypasswd', 'etc/passwd'],
  },
  HardlinkDownAndOut: {
    entries: [
      ...inside,
      dir('breakouts'),
      dir('downandout'),
      symlink('../downandout/../../etc', 'breakouts/d1'),
      link('/breakouts/d1/passwd', 'breakouts/mypasswd'),
    ],
    same: ['breakouts/mypasswd', 'etc/passwd'],
  },
  HardlinkAbsolute: {
    entries: [...inside, symlink('/etc', 'localetc'), link('/localetc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
  },
  HardlinkRelativeLong: {
    entries: [...inside, symlink('../../../../../../../etc', 'localetc'), link('/localetc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
  },
  HardlinkRelativeUpAndOut: {
    // `upandout` does not exist, and is not made.
    entries: [...inside, symlink('upandout/../../../etc', 'localetc'), link('/localetc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
    missing: ['upandout'],
  },
  HardlinkDirectRelative: {
    entries: [...inside, link('../../../../../etc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
  },
  HardlinkDirectAbsolute: {
    entries: [...inside, link('/etc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
  },
  SymlinkParentDirectory: {
    entries: [...inside, symlink('/etc/', '..'), link('/etc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
  },
  SymlinkEmptyFilename: {
    entries: [...inside, { ...symlink('/etc/', ''), name: Buffer.alloc(0) }, link('/etc/passwd', 'localpasswd')],
    same: ['localpasswd', 'etc/passwd'],
  },
  SymlinkParentRelative: {
    entries: [...inside, symlink('/etc/', 'localetc/sub/..'), link('/etc/passwd', '/localetc/localpasswd')],
    same: ['etc/localpasswd', 'etc/passwd'],
  },
  SymlinkSlashEnded: {
    entries: [...inside, dir('localetc/', 0o770), link('/etc/passwd', '/localetc/localpasswd')],
    same: ['localetc/localpasswd', 'etc/passwd'],
  },
  SymlinkOverrideDirectory: {
    before: { etc: null, 'etc/passwd': 'inside', localetc: null },
    entries: [symlink('/etc', 'localetc'), link('/etc/passwd', '/localetc/localpasswd')],
    same: ['etc/localpasswd', 'etc/passwd'],
  },
  SymlinkOverrideDirectoryRelative: {
    before: { etc: null, 'etc/passwd': 'inside', localetc: null },
    entries: [symlink('../../etc', 'localetc'), link('/etc/passwd', '/localetc/localpasswd')],
    same: ['etc/localpasswd', 'etc/passwd'],
  },
  DirectoryOverrideSymlink: {
    before: { etc: null, 'etc/passwd': 'inside', localetc: { symlink: '/etc' } },
    entries: [dir('/localetc/'), link('/etc/passwd', '/localetc/localpasswd')],
    same: ['localetc/localpasswd', 'etc/passwd'],
    missing: ['etc/localpasswd'],
  },
  DirectoryOverrideSymlinkAndHardlink: {
    before: {
      etc: null,
      'etc/passwd': 'inside',
      localetc: { symlink: 'etc' },
      'etc/localpasswd': { link: 'etc/passwd' },
    },
    entries: [dir('/localetc/'), file('/localetc/localpasswd', 'different')],
    different: ['localetc/localpasswd', 'etc/passwd'],
    content: { 'etc/passwd': 'inside' },
  },
  WhiteoutRootParent: { before: users, entries: [file('.wh...', '')], refused: /invalid whiteout name/ },
  WhiteoutParent: { before: users, entries: [file('etc/.wh...', '')], refused: /invalid whiteout name/ },
  WhiteoutRoot: { before: users, entries: [file('.wh..', '')], refused: /invalid whiteout name/ },
  WhiteoutCurrentDirectory: { before: users, entries: [file('etc/.wh..', '')], refused: /invalid whiteout name/ },
  WhiteoutOfNothing: { before: users, entries: [file('etc/.wh.', '')], refused: /invalid whiteout name/ },
  WhiteoutOfNothingAsDirectory: { before: users, entries: [dir('etc/.wh./')], refused: /invalid whiteout name/ },
  WhiteoutSymlink: {
    before: { ...users, localetc: { symlink: '/etc' } },
    entries: [file('.wh.localetc', '')],
    content: { 'etc/passwd': 'all users' },
    missing: ['localetc'],
  },
  WhiteoutSymlinkPath: {
    before: { ...users, 'etc/whitedout': 'ahhhh', localetc: { symlink: '/etc' } },
    entries: [file('localetc/.wh.whitedout', '')],
    content: { 'etc/passwd': 'all users' },
    missing: ['etc/whitedout'],
  },
  WhiteoutDirectoryName: {
    before: { ...users, localetc: { symlink: '/etc' } },
    entries: [file('.wh.etc/somefile', 'non-empty')],
    content: { 'etc/passwd': 'all users', '.wh.etc/somefile': 'non-empty' },
  },
  WhiteoutDeadSymlinkParent: {
    before: { ...users, localetc: { symlink: '/dne' } },
    entries: [file('localetc/.wh.etc', '')],
    content: { 'etc/passwd': 'all users' },
  },
  WhiteoutRelativePath: {
    before: { ...users, localetc: { symlink: '/dne' } },
    entries: [file('dne/../.wh.etc', '')],
    missing: ['etc/passwd', 'etc'],
  },
  SymlinkOverridePath: {
    entries: [dir('etc'), dir('a'), symlink('/etc', 'a'), file('a/x', 'through the link')],
    content: { 'etc/x': 'through the link' },
  },
  HardlinkSymlinkBeforeCreateTarget: {
    entries: [
      dir('etc', 0o770),
      symlink('/etc/passwd', 'localpasswd'),
      link('localpasswd', 'localpasswd-dup'),
      file('/etc/passwd', 'after'),
    ],
    links: { 'localpasswd-dup': '/etc/passwd' },
    content: { 'etc/passwd': 'after' },
  },
  HardlinkSymlinkRelative: {
    entries: [...inside, symlink('../../../../../etc/passwd', 'passwdlink'), link('/passwdlink', 'localpasswd')],
    links: { localpasswd: '../../../../../etc/passwd' },
    same: ['localpasswd', 'passwdlink'],
  },
  HardlinkSymlinkAbsolute: {
    entries: [...inside, symlink('/etc/passwd', 'passwdlink'), link('/passwdlink', 'localpasswd')],
    links: { localpasswd: '/etc/passwd' },
    same: ['localpasswd', 'passwdlink'],
  },
  HardlinkSymlinkChmod: {
    entries: [
      symlink('../../etc/passwd', 'out'),
      link('out', 'sketchylink'),
      { ...link('out', 'again'), mode: 0o7777 },
    ],
    links: { sketchylink: '../../etc/passwd' },
  },
  'dot-dot above the root': {
    entries: [file('../../etc/x', '1'), file('a/../../y', '2'), file('/abs', '3')],
    content: { 'etc/x': '1', y: '2', abs: '3' },
  },
  'three links up and out': {
    entries: [symlink('../../..', 'l1'), symlink('l1/../..', 'l2'), symlink('../l2', 'd/l3'), file('d/l3/x', 'here')],
    content: { x: 'here' },
  },
  'a loop of links': {
    entries: [symlink('b', 'a'), symlink('a', 'b'), file('a/x', 'never')],
    refused: /too many levels of symbolic links/,
  },
  'a link to itself as parent': { entries: [symlink('a', 'a'), file('a/x', 'never')], refused: /too many levels/ },
  'a loop in a hard link target': {
    entries: [symlink('b', 'a'), symlink('a', 'b'), link('a/x', 'y')],
    refused: /too many levels/,
  },
  'a file as parent': { entries: [file('a', 'file'), file('a/b', 'below')], refused: /is not a directory/ },
  'a file behind a link as parent': {
    entries: [file('a', 'file'), symlink('a', 'l'), file('l/b', 'below')],
    refused: /is not a directory/,
  },
  'hard link to itself': { entries: [file('a', 'x'), link('a', 'a')], refused: /hard link to itself/ },
  'hard link to itself by another path': {
    entries: [dir('d'), file('d/a', 'x'), symlink('/d', 'l'), link('l/a', 'd/a')],
    refused: /hard link to itself/,
  },
  'hard link to a later entry': { entries: [link('later', 'a'), file('later', 'x')], refused: /does not exist/ },
  'hard link to a directory': { entries: [dir('d'), link('d', 'a')], refused: /hard link to a directory/ },
  'hard link to the root': { entries: [link('/', 'a')], refused: /hard link to a directory/ },
  'hard link to dot-dot': { entries: [link('..', 'a')], refused: /hard link to a directory/ },
  'hard link to outside': { entries: [link('../etc/passwd', 'a')], refused: /does not exist/ },
  'hard link through an outward link': {
    entries: [symlink('../etc', 'l'), link('l/passwd', 'a')],
    refused: /does not exist/,
  },
  'magic links': {
    entries: [
      dir('proc'),
      dir('proc/self'),
      symlink('/proc/self/root', 'r'),
      file('r/escaped', 'no'),
      symlink('/proc/self/fd/3', 'f'),
      file('f/x', 'no'),
    ],
    content: { 'proc/self/root/escaped': 'no', 'proc/self/fd/3/x': 'no' },
  },
  'directory over a link to a directory outside': {
    entries: [symlink('../etc', 'd'), dir('d', 0o700), file('d/passwd', 'mine')],
    content: { 'd/passwd': 'mine' },
  },
  'file over a link to a file outside': {
    entries: [symlink('../etc/passwd', 'p'), file('p', 'mine')],
    content: { p: 'mine' },
  },
  'directory swapped for a link between two files of it': {
    entries: [
      dir('etc'),
      dir('d'),
      file('d/1', '1'),
      symlink('../../etc', 'd'),
      file('d/2', '2'),
      dir('d'),
      file('d/3', '3'),
    ],
    content: { 'etc/2': '2', 'd/3': '3' },
    missing: ['d/1', 'd/2', 'etc/3'],
  },
  'a parent link swapped for another': {
    entries: [dir('a'), dir('b'), symlink('a', 'l'), file('l/1', '1'), symlink('b', 'l'), file('l/2', '2')],
    content: { 'a/1': '1', 'b/2': '2' },
    missing: ['a/2'],
  },
  'a whiteout of a lower link on the way': {
    before: { ...users, l: { symlink: '/etc' } },
    entries: [file('l/1', '1'), file('.wh.l', ''), file('l/2', '2')],
    content: { 'etc/1': '1', 'l/2': '2' },
    missing: ['etc/2'],
  },
};
