/** Who starts the daemon decides where its things lie: the system's directories for root, the user's own for everybody else. */
import { join } from 'node:path';

export interface Identity {
  readonly uid: number;
  readonly gid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface Places {
  readonly root: string;
  readonly state: string;
  readonly address: string;
}

/** The config file that is read when none is named; root's is used for everybody, since it may name directories that a user can write. */
export const defaultConfigPath = '/etc/troupe/config.toml';

export function processIdentity(): Identity {
  return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, env: process.env };
}

/** XDG base directories, whose specification asks to ignore relative ones. */
export function defaultPlaces({ uid, env }: Identity): Places {
  if (uid === 0) return placesAt('/var/lib/troupe', '/run/troupe');
  const absolute = (path: string | undefined) => (path?.startsWith('/') ? path : undefined);
  const data = absolute(env.XDG_DATA_HOME) ?? (absolute(env.HOME) && join(env.HOME!, '.local/share'));
  const runtime = absolute(env.XDG_RUNTIME_DIR);
  const state = runtime === undefined ? `/tmp/troupe-${uid}` : join(runtime, 'troupe');
  return placesAt(data === undefined ? `/tmp/troupe-${uid}-data` : join(data, 'troupe'), state);
}

function placesAt(root: string, state: string): Places {
  return { root, state, address: join(state, 'troupe.sock') };
}
