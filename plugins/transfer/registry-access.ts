/** How registries are reached: the plugin's config, what the client says of this one, and who answers when credentials are wanted. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type CallOptions, Failure, type PluginContext } from 'troupe/plugin';
import {
  AuthRequest,
  AuthResponse,
  AuthType,
  type RegistryResolver,
} from 'troupe/proto/containerd/types/transfer/registry.ts';
import { StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import type { BlobOptions } from '../lib/registry/blob.ts';
import { type Credential, type CredentialSource, dockerConfig, firstOf } from '../lib/registry/credentials.ts';
import type { Hop } from '../lib/registry/host-client.ts';
import { hostsOf, type RegistryHost } from '../lib/registry/hosts.ts';
import { Registry } from '../lib/registry/registry.ts';
import type { Transports } from '../lib/registry/transports.ts';
import { parseReference } from '../lib/reference/reference.ts';
import { ClientStream } from './client-stream.ts';
import type { Config } from './config.ts';
import { runHelper } from './credential-helper.ts';

export interface Access {
  readonly registry: Registry;
  readonly hosts: readonly RegistryHost[];
  /** Lets go of the client's streams. */
  close(): void;
}

/** @throws Failure InvalidArgument for a reference or a hosts file that is wrong, NotFound for a stream that is not there */
export async function openRegistry(
  ctx: Pick<PluginContext<Config>, 'call' | 'spawn'>,
  config: Config,
  transports: Transports,
  { reference: text, resolver }: { readonly reference: string; readonly resolver: RegistryResolver | undefined },
  call: CallOptions & { readonly namespace: string },
  onHop?: (hop: Hop) => void,
): Promise<Access> {
  const reference = parseReference(text);
  for (const [name, value] of Object.entries(resolver?.headers ?? {}))
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || /[^\t\x20-\x7e]/.test(value))
      throw new Failure(
        'InvalidArgument',
        `header ${JSON.stringify(name.slice(0, 100))} is malformed: invalid argument`,
      );
  const hosts = hostsOf(reference.hostname, {
    directories: (resolver?.hostDir || config.config_path).split(':').filter((each) => each !== ''),
    defaultScheme: resolver?.defaultScheme ?? '',
  });
  const stream =
    resolver === undefined || resolver.authStream === ''
      ? undefined
      : await ClientStream.take(ctx.call(StreamsDefinition), resolver.authStream, call);
  const file = dockerConfigFile(config.docker_config);
  const credentials = firstOf(
    ...(stream === undefined ? [] : [fromClient(stream)]),
    dockerConfig(file, (name, server, signal) => runHelper(ctx, name, server, signal)),
  );
  const registry = new Registry({
    reference,
    hosts,
    transports,
    credentials,
    headers: resolver?.headers ?? {},
    trusted: config.credential_realms,
    backoff: backoffOf(config),
    ...(onHop !== undefined && { onHop }),
  });
  return { registry, hosts, close: () => stream?.close() };
}

export function blobOptionsOf(config: Config): BlobOptions {
  return {
    backoff: backoffOf(config),
    rate: { least: config.min_rate, windowMs: config.stall_timeout },
    piece: config.concurrent_layer_fetch_buffer,
    pieces: config.layer_fetch_pieces,
  };
}

function backoffOf({ retry_backoff: firstMs, retry_attempts: attempts }: Config): BlobOptions['backoff'] {
  return { firstMs, attempts: Math.max(attempts, 1) };
}

function dockerConfigFile(configured: string): string {
  if (configured === 'none') return '';
  return configured || join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json');
}

/** Asks the client, one question at a time: its answers come in the order of the questions and name none. */
function fromClient(stream: ClientStream): CredentialSource {
  let turn: Promise<unknown> = Promise.resolve();
  return ({ host, reference, challenges }) => {
    const answer = turn.then(async () => {
      if (!(await stream.send(AuthRequest, { host, reference, wwwauthenticate: [...challenges] }))) return undefined;
      const response = await stream.receive(AuthResponse);
      return response === undefined ? undefined : credentialOf(response);
    });
    turn = answer.catch(() => {});
    return answer;
  };
}

function credentialOf({ authType, username, secret }: AuthResponse): Credential | undefined {
  switch (authType) {
    case AuthType.NONE:
      return undefined;
    case AuthType.CREDENTIALS:
      return { kind: 'basic', username, password: secret };
    case AuthType.REFRESH:
      // What a client answers that has nothing.
      return secret === '' ? undefined : { kind: 'refresh', token: secret, username };
    case AuthType.HEADER:
      if (/[\r\n\0]/.test(secret))
        throw new Failure('InvalidArgument', 'the header of the credentials has more than a line: invalid argument');
      return { kind: 'header', value: secret };
    default:
      throw new Failure('InvalidArgument', `credentials of type ${authType}: invalid argument`);
  }
}
