/**
 * `troupe/sys`: system calls that Node does not have, synchronous and typed. Every failure is a `SysError` in the shape of Node's own; every descriptor
 * that is opened here closes on exec; names and paths are strings or bytes. The only importer of koffi.
 *
 *   errno.ts     SysError              fd.ts       dup, close on exec, flock        mount.ts, mount-options.ts, overlay.ts, mountinfo.ts
 *   libc.ts      the door to koffi     at.ts       openat2 … utimensat              socket.ts, listen.ts, notify.ts
 *   stat.ts      statx                 xattr.ts    extended attributes              process.ts, thread.ts
 *   sync.ts      syncfs, fsync         extent.ts   holes, copies inside the kernel    loading.ts   who may be ended when
 *   inodes.ts    getdents64, statx     statx.ts    what lies where in its answer
 */
import { isMainThread } from 'node:worker_threads';
import { prepareSystemCalls } from './libc.ts';

export * from './at.ts';
export { describeErrno, errnos, isErrno, type Path, SysError } from './errno.ts';
export * from './extent.ts';
export * from './fd.ts';
export { type ListenOptions, listenUnix, type UnixListener } from './listen.ts';
export { type ForeignLibrary, openLibrary, ownLibrary, prepareSystemCalls } from './libc.ts';
export * from './mount.ts';
export { awaitLoads, shareLoads, loadsEnded } from './loading.ts';
export * from './mount-options.ts';
export { type MountInfo, mountinfo, parseMountinfo } from './mountinfo.ts';
export { eachInode, type Inode } from './inodes.ts';
export { type InheritedFd, listenFds, sdNotify } from './notify.ts';
export * from './process.ts';
export { isListening, type PeerCredentials, peerCredentials, socketFd, unixPathLimit } from './socket.ts';
export * from './stat.ts';
export * from './sync.ts';
export * from './thread.ts';
export * from './xattr.ts';

// A thread that is terminated while koffi declares functions takes the process with it (libc.ts). A worker declares them while it loads, before
// anybody knows it; the main thread is never terminated and waits for the first call.
if (!isMainThread) prepareSystemCalls();
