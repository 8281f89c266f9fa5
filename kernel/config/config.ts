/** The daemon's config as the kernel uses it: complete, checked, in milliseconds and bytes. */
import type { Problem } from './problem.ts';
import type { formats, levels } from './schema.ts';
import type { MergedDocument } from './merge.ts';
import type { TomlTable } from './toml.ts';

export type LogLevel = (typeof levels)[number];

export interface SocketConfig {
  /** Absolute path; empty where there is none. */
  readonly address: string;
  readonly uid: number;
  readonly gid: number;
}

export interface GrpcConfig extends SocketConfig {
  /** `HOST:PORT`, or empty. */
  readonly tcpAddress: string;
  readonly tcpTlsCert: string;
  readonly tcpTlsKey: string;
  readonly tcpTlsCa: string;
  readonly tcpTlsCommonName: string;
  readonly maxRecvMessageSize: number;
  readonly maxSendMessageSize: number;
  /** `[kernel.front] insecure_tcp`: plain or one-sided TLS is meant. Warned about at every start. */
  readonly insecureTcp: boolean;
}

export interface FrontConfig {
  readonly maxConnections: number;
  readonly maxTcpConnections: number;
  readonly maxStreams: number;
  readonly maxHeaderSize: number;
  readonly connectionMemory: number;
  readonly memory: number;
  readonly handshakeMs: number;
}

export interface KernelConfig {
  readonly threads: 'plugin' | 'lean';
  readonly pluginDirs: readonly string[];
  readonly unresponsiveMs: number;
  /** 0: a silent thread is never ended. */
  readonly killMs: number;
  readonly front: FrontConfig;
}

export interface ProxyPlugin {
  readonly type: 'snapshot' | 'content' | 'diff' | 'sandbox';
  readonly address: string;
  readonly platform: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly capabilities: readonly string[];
}

export interface StreamProcessor {
  readonly accepts: readonly string[];
  readonly returns: string;
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
}

export interface Config {
  /** Format of the root file: 2, 3 or 4. */
  readonly version: number;
  /** Absolute paths of the files that were read, the root file first; empty when there is no file. */
  readonly files: readonly string[];
  readonly root: string;
  readonly state: string;
  readonly temp: string;
  readonly disabledPlugins: readonly string[];
  readonly requiredPlugins: readonly string[];
  readonly oomScore: number;
  readonly grpc: GrpcConfig;
  readonly ttrpc: SocketConfig;
  readonly debug: SocketConfig & { readonly level: LogLevel; readonly format: (typeof formats)[number] };
  readonly metrics: { readonly address: string; readonly grpcHistogram: boolean };
  readonly cgroup: { readonly path: string };
  /** Milliseconds by containerd's names, its defaults included. */
  readonly timeouts: Readonly<Record<string, number>>;
  readonly proxyPlugins: Readonly<Record<string, ProxyPlugin>>;
  readonly streamProcessors: Readonly<Record<string, StreamProcessor>>;
  /** `[plugins."URI"]` as written, in the layout of version 3; `pluginConfig` gives what a plugin receives. */
  readonly plugins: Readonly<Record<string, TomlTable>>;
  readonly kernel: KernelConfig;
  readonly warnings: readonly Problem[];
  /** The merged document, for what else wants to read it with lines. */
  readonly document: MergedDocument;
  /** Who said so: `FILE:LINE`, a flag (`--root`), or undefined for a default. */
  origin(path: readonly string[]): string | undefined;
}

/** Options of the command line that the config yields to. */
export interface ConfigFlags {
  readonly address?: string;
  readonly root?: string;
  readonly state?: string;
  readonly logLevel?: string;
}
