/** What the front is told of the daemon's config: `[grpc]`, `[ttrpc]`, `[debug]`, `[metrics]` and `[kernel.front]`, checked and complete. */
import type { Config } from '../config/index.ts';

/** A unix socket; an empty address is none. */
export interface SocketPlace {
  readonly address: string;
  readonly uid: number;
  readonly gid: number;
}

export interface TcpPlace {
  /** `HOST:PORT`; empty for none. */
  readonly address: string;
  /** PEM files. */
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  /** The only common name that a client certificate may carry; empty for any. */
  readonly commonName: string;
  /** Serve without client certificates, or without TLS at all, because the config insists. */
  readonly insecure: boolean;
}

/** What one client, or all of them together, may take. Bytes and milliseconds. */
export interface FrontLimits {
  readonly maxRecvMessageSize: number;
  readonly maxSendMessageSize: number;
  readonly maxConnections: number;
  readonly maxTcpConnections: number;
  readonly maxStreams: number;
  readonly maxHeaderSize: number;
  readonly connectionMemory: number;
  readonly memory: number;
  readonly handshakeMs: number;
}

export interface FrontConfig {
  readonly grpc: SocketPlace;
  readonly tcp: TcpPlace;
  readonly ttrpc: SocketPlace;
  readonly debug: SocketPlace;
  readonly metrics: { readonly address: string; readonly grpcHistogram: boolean };
  readonly limits: FrontLimits;
}

export function frontConfig(config: Config): FrontConfig {
  const { grpc, ttrpc, debug, metrics, kernel } = config;
  const { front } = kernel;
  return {
    grpc: { address: grpc.address, uid: grpc.uid, gid: grpc.gid },
    tcp: {
      address: grpc.tcpAddress,
      cert: grpc.tcpTlsCert,
      key: grpc.tcpTlsKey,
      ca: grpc.tcpTlsCa,
      commonName: grpc.tcpTlsCommonName,
      insecure: grpc.insecureTcp,
    },
    ttrpc: { address: ttrpc.address, uid: ttrpc.uid, gid: ttrpc.gid },
    debug: { address: debug.address, uid: debug.uid, gid: debug.gid },
    metrics: { address: metrics.address, grpcHistogram: metrics.grpcHistogram },
    limits: {
      maxRecvMessageSize: grpc.maxRecvMessageSize,
      maxSendMessageSize: grpc.maxSendMessageSize,
      maxConnections: front.maxConnections,
      maxTcpConnections: front.maxTcpConnections,
      maxStreams: front.maxStreams,
      maxHeaderSize: front.maxHeaderSize,
      connectionMemory: front.connectionMemory,
      memory: front.memory,
      handshakeMs: front.handshakeMs,
    },
  };
}
