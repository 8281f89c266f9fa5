/** Who asks. Credentials come from the client that asked for the transfer, or from docker's config; each belongs to one host and is sent to no other. */
import { readFileSync, statSync } from 'node:fs';
import { Failure } from 'troupe/plugin';

export type Credential =
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  /** An OAuth refresh token. */
  | { readonly kind: 'refresh'; readonly token: string; readonly username: string }
  /** The whole Authorization header. */
  | { readonly kind: 'header'; readonly value: string };

/** Undefined: none for that host. */
export type CredentialSource = (request: {
  /** With its port, as in references: `example.com:5000`, `docker.io`. */
  readonly host: string;
  readonly reference: string;
  /** `WWW-Authenticate` as it came. */
  readonly challenges: readonly string[];
  readonly signal: AbortSignal;
}) => Promise<Credential | undefined>;

/** Runs `docker-credential-NAME get` with the server on stdin; what it prints. */
export type RunHelper = (name: string, server: string, signal: AbortSignal) => Promise<string>;

/** The first that has some. */
export function firstOf(...sources: readonly CredentialSource[]): CredentialSource {
  return async (request) => {
    for (const source of sources) {
      const found = await source(request);
      if (found !== undefined) return found;
    }
    return undefined;
  };
}

const largestConfig = 4 << 20;
/** The name that docker has for its own registry since before there were others. */
const dockerHub = 'https://index.docker.io/v1/';

interface DockerConfig {
  readonly auths?: Readonly<Record<string, DockerAuth>>;
  readonly credHelpers?: Readonly<Record<string, string>>;
  readonly credsStore?: string;
}

interface DockerAuth {
  readonly auth?: string;
  readonly username?: string;
  readonly password?: string;
  readonly identitytoken?: string;
  readonly registrytoken?: string;
}

/**
 * docker's config.json: `auths`, `credHelpers`, `credsStore`. Read at each question. A host is matched whole: neither a suffix nor another port of it gets what
 * was meant for it.
 */
export function dockerConfig(file: string, runHelper: RunHelper): CredentialSource {
  return async ({ host, signal }) => {
    const config = readConfig(file);
    if (config === undefined) return undefined;
    const server = host === 'docker.io' || host === 'registry-1.docker.io' ? dockerHub : host;
    const helper = ownValue(config.credHelpers, host) ?? ownValue(config.credHelpers, server) ?? config.credsStore;
    if (typeof helper === 'string' && helper !== '') {
      const found = await fromHelper(runHelper, helper, server, signal);
      if (found !== undefined) return found;
    }
    for (const [key, auth] of Object.entries(config.auths ?? {}))
      if (keyHost(key) === keyHost(server)) return fromAuth(auth);
    return undefined;
  };
}

/** Host and port that a key of the config names; keys are hosts, or URLs of which only the host counts. */
export function keyHost(key: string): string {
  return key
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/s, '')
    .toLowerCase();
}

function fromAuth(auth: DockerAuth): Credential | undefined {
  if (typeof auth !== 'object' || auth === null) return undefined;
  const decoded = typeof auth.auth === 'string' ? Buffer.from(auth.auth, 'base64').toString('utf8') : '';
  const colon = decoded.indexOf(':');
  const username = auth.username || (colon > 0 ? decoded.slice(0, colon) : '');
  const password = auth.password || (colon > 0 ? decoded.slice(colon + 1).replace(/\0+$/, '') : '');
  if (auth.registrytoken) return { kind: 'header', value: `Bearer ${auth.registrytoken}` };
  if (auth.identitytoken) return { kind: 'refresh', token: auth.identitytoken, username };
  return username === '' ? undefined : { kind: 'basic', username, password };
}

async function fromHelper(
  run: RunHelper,
  name: string,
  server: string,
  signal: AbortSignal,
): Promise<Credential | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(name))
    throw new Failure(
      'InvalidArgument',
      `credential helper ${JSON.stringify(name.slice(0, 100))}: its name is malformed: invalid argument`,
    );
  let said: { Username?: unknown; Secret?: unknown };
  try {
    said = JSON.parse(await run(name, server, signal)) as typeof said;
  } catch (error) {
    signal.throwIfAborted();
    // A helper says "not found" by failing; that there is none for this host is the usual case.
    if (/credentials not found/.test((error as Error).message)) return undefined;
    throw new Failure(
      'Unavailable',
      `credential helper ${name}: ${(error as Error).message.slice(0, 300)}: unavailable`,
      { cause: error },
    );
  }
  const { Username: username, Secret: secret } = said;
  if (typeof username !== 'string' || typeof secret !== 'string' || secret === '') return undefined;
  return username === '<token>'
    ? { kind: 'refresh', token: secret, username: '' }
    : { kind: 'basic', username, password: secret };
}

function readConfig(file: string): DockerConfig | undefined {
  const status = file === '' ? undefined : statSync(file, { throwIfNoEntry: false });
  if (status === undefined) return undefined;
  const wrong = (problem: string): Failure =>
    new Failure('FailedPrecondition', `${file}: ${problem}: failed precondition`);
  if (!status.isFile() || status.size > largestConfig) throw wrong('is not a config of docker');
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(file, 'utf8'));
  } catch (_error) {
    // Its text may hold a password, and so may the message.
    throw wrong('is not JSON');
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) throw wrong('is not an object');
  return config as DockerConfig;
}

function ownValue(table: Readonly<Record<string, string>> | undefined, key: string): string | undefined {
  return table !== undefined && Object.hasOwn(table, key) ? table[key] : undefined;
}
