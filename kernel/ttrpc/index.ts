/** ttrpc, the protocol between a daemon and its shims: what the front (server) and the task manager (client) import as `troupe/ttrpc`. */

export { TtrpcClient, type TtrpcCallOptions, type TtrpcClientOptions } from './client.ts';
export { encodeFrame, type Frame, FrameDecoder, frameFlags, frameTypes, headerBytes, maxBodyBytes } from './frame.ts';
export { TtrpcServer, type TtrpcServerCall, type TtrpcServerOptions } from './server.ts';
export { failureOf, statusOf } from './status.ts';
export { type ServiceDefinition, type TtrpcStub, ttrpcStub } from './stub.ts';
