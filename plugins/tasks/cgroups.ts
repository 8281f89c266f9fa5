/**
 * Control groups that nobody else knows of: a runtime makes them before it notes that there is a container, and one that is killed in between (a shim kills it when
 * the connection of whoever asked for the container ends) leaves them to nobody. Only what is empty is removed.
 */
import { readdirSync, rmdirSync } from 'node:fs';
import { join, posix } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { mountinfo } from 'troupe/sys';
import { isScarcity, whenThereAreDescriptors } from './scarcity.ts';

/** What is being killed is in its group for some milliseconds more. */
const attempts = 20;
const pauseMs = 25;

/** @param path of the spec (`linux.cgroupsPath`); one that is systemd's, relative, or leads elsewhere is left alone */
export async function removeCgroups(path: string): Promise<void> {
  if (!posix.isAbsolute(path) || posix.normalize(path) !== path || path.endsWith('/')) return;
  await whenThereAreDescriptors(async () => {
    const mounts = mountinfo().filter(({ fstype }) => fstype === 'cgroup' || fstype === 'cgroup2');
    for (const { mountPoint } of mounts) {
      for (let attempt = 0; !removed(join(mountPoint, path)) && attempt < attempts; attempt++) await delay(pauseMs);
    }
  });
}

/** True as well when it is not there, or cannot ever be removed. */
function removed(dir: string): boolean {
  try {
    for (const entry of readdirSync(dir, { withFileTypes: true }))
      if (entry.isDirectory() && !removed(join(dir, entry.name))) return false;
    rmdirSync(dir);
    return true;
  } catch (error) {
    if (isScarcity(error)) throw error;
    return (error as NodeJS.ErrnoException).code !== 'EBUSY';
  }
}
