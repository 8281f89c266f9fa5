/**
 * Every key of the config file that is not a plugin's: its type, default and one sentence about it. Reading, `config default` and
 * `config explain` all go by this table. Sections marked ours are strict: a key nobody knows is an error there; in containerd's it is a warning,
 * since a file written for another version of containerd must still start.
 */
import type { ConfigKey } from '../plan/config-key.ts';
import { defaultPlaces, type Identity } from './identity.ts';

export interface Section {
  readonly doc: string;
  readonly ours?: true;
  readonly keys: Readonly<Record<string, ConfigKey>>;
}

/** The version that `config default` and `config migrate` write. */
export const writtenVersion = 3;
export const newestVersion = 4;

const string = (value: string, doc: string): ConfigKey => ({ type: 'string', default: value, doc });
const strings = (doc: string): ConfigKey => ({ type: 'strings', default: [], doc });
const boolean = (doc: string): ConfigKey => ({ type: 'boolean', default: false, doc });
const duration = (ms: number, doc: string): ConfigKey => ({ type: 'duration', default: ms, doc });
const size = (bytes: number, doc: string): ConfigKey => ({ type: 'size', default: bytes, doc });
const count = (value: number, max: number, doc: string): ConfigKey => ({
  type: 'integer',
  default: value,
  min: 1,
  max,
  doc,
});
const owner = (value: number, doc: string): ConfigKey => ({
  type: 'integer',
  default: value,
  min: 0,
  max: 2 ** 32 - 2,
  doc,
});

export const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'panic'] as const;
export const formats = ['text', 'json'] as const;

/** containerd's names and defaults, in milliseconds. */
export const timeoutDefaults: Readonly<Record<string, number>> = {
  'io.containerd.timeout.bolt.open': 0,
  'io.containerd.timeout.cri.defercleanup': 60_000,
  'io.containerd.timeout.metrics.shimstats': 2000,
  'io.containerd.timeout.shim.cleanup': 5000,
  'io.containerd.timeout.shim.load': 5000,
  'io.containerd.timeout.shim.shutdown': 3000,
  'io.containerd.timeout.task.state': 2000,
};

/** Sections by their name, `` being the top of the file. Defaults that depend on who starts the daemon come from `identity`. */
export function sections(identity: Identity): Readonly<Record<string, Section>> {
  const places = defaultPlaces(identity);
  return {
    '': {
      doc: '',
      keys: {
        version: {
          type: 'integer',
          default: writtenVersion,
          doc: 'format of this file: 2, 3 or 4, as containerd counts them',
        },
        root: string(places.root, 'what must survive a reboot: content, snapshots, the database'),
        state: string(places.state, 'what must not: bundles, sockets'),
        temp: string('', 'directory for temporary files; empty: the TMPDIR of the environment'),
        imports: strings('more files, or globs of them, relative to this one; what they say wins'),
        disabled_plugins: strings('ids of plugins that are not started, nor is what requires them'),
        required_plugins: strings('ids of plugins without which the daemon does not start'),
        oom_score: {
          type: 'integer',
          default: 0,
          min: -1000,
          max: 1000,
          doc: "the daemon's oom_score_adj; 0: left as it is",
        },
      },
    },
    grpc: {
      doc: 'the socket that clients use',
      keys: {
        address: string(places.address, 'path of the unix socket'),
        uid: owner(identity.uid, 'owner of the socket'),
        gid: owner(identity.gid, 'group of the socket; its members are as good as root'),
        tcp_address: string('', 'HOST:PORT to serve over TCP too, with mutual TLS'),
        tcp_tls_cert: string('', "the server's certificate, a PEM file"),
        tcp_tls_key: string('', 'its key, a PEM file'),
        tcp_tls_ca: string('', 'authorities that client certificates must come from, a PEM file'),
        tcp_tls_common_name: string('', 'the only common name accepted in a client certificate; empty: any'),
        max_recv_message_size: size(16 << 20, 'largest message accepted'),
        max_send_message_size: size(16 << 20, 'largest message sent'),
      },
    },
    ttrpc: {
      doc: 'the socket that shims send their events to',
      keys: {
        address: string('', 'path of the unix socket; empty: that of [grpc] and .ttrpc'),
        uid: owner(identity.uid, 'owner of the socket'),
        gid: owner(identity.gid, 'group of the socket'),
      },
    },
    debug: {
      doc: 'the log, and the socket for looking inside',
      keys: {
        address: string('', 'path of the debug socket; empty: none'),
        uid: owner(identity.uid, 'owner of the socket'),
        gid: owner(identity.gid, 'group of the socket'),
        level: { ...string('info', `least severe messages shown: ${levels.join(', ')}`), choices: ['', ...levels] },
        format: { ...string('text', `${formats.join(' or ')}`), choices: ['', ...formats] },
      },
    },
    metrics: {
      doc: 'metrics in the Prometheus format, at /v1/metrics',
      keys: {
        address: string('', 'HOST:PORT; empty: none'),
        grpc_histogram: boolean('count how long each gRPC call takes'),
      },
    },
    cgroup: { doc: 'where the daemon itself runs', keys: { path: string('', 'cgroup to move into; empty: stay') } },
    kernel: {
      doc: 'the part below the plugins; these keys are ours',
      ours: true,
      keys: {
        threads: {
          ...string(
            'plugin',
            'plugin: a worker thread for each plugin; lean: those that agreed to it share one, for less memory',
          ),
          choices: ['plugin', 'lean'],
        },
        plugin_dirs: strings('directories with plugins beside those that come with the daemon'),
        unresponsive: duration(1000, 'a thread silent for this long is reported'),
        kill: duration(10_000, 'a thread silent for this long is ended and started anew; 0: never'),
      },
    },
    'kernel.front': {
      doc: 'what one client, or all of them, may take',
      ours: true,
      keys: {
        insecure_tcp: boolean(
          'serve tcp_address without asking clients for a certificate, which gives root to whoever can connect',
        ),
        max_connections: count(512, 100_000, 'connections to the unix socket'),
        max_tcp_connections: count(64, 100_000, 'connections over TCP'),
        max_streams: count(10_000, 1_000_000, 'calls that one connection has open; every Wait is one'),
        max_header_size: size(64 << 10, 'headers of one call'),
        connection_memory: size(64 << 20, 'bytes in flight of one connection'),
        memory: size(256 << 20, 'bytes in flight of all connections'),
        handshake: duration(5000, 'a connection that has not said what it speaks by then is closed'),
      },
    },
  };
}

export const proxyPluginKeys: Readonly<Record<string, ConfigKey>> = {
  type: {
    ...string('', 'what it is: snapshot, content, diff or sandbox'),
    choices: ['snapshot', 'content', 'diff', 'sandbox'],
  },
  address: string('', 'its socket'),
  platform: string('', 'os/arch that it works for'),
  exports: { type: 'table', default: {}, doc: 'shown by introspection' },
  capabilities: strings('shown by introspection'),
};

export const streamProcessorKeys: Readonly<Record<string, ConfigKey>> = {
  accepts: strings('media types that it reads'),
  returns: string('', 'media type that it writes'),
  path: string('', 'the program'),
  args: strings('its arguments'),
  env: strings('KEY=VALUE added to its environment'),
};
