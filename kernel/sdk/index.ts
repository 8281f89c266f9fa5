/** What a plugin may import, as `troupe/plugin`. */
export { Failure, failureCodes } from './failure.ts';
export type { FailureCode, FailureRecord } from './failure.ts';
export { failpoint } from './failpoint.ts';
export { definePlugin, Skip, skip } from './plugin.ts';
export type {
  Call,
  CallOptions,
  Client,
  Codec,
  DaemonInfo,
  EventCodec,
  Log,
  MethodDefinition,
  PluginContext,
  StartedProcess,
  PluginDefinition,
  PluginInstance,
  Service,
  ServiceDefinition,
} from './plugin.ts';
export { release } from '../../proto/owned.ts';
export { recordEvent } from './records.ts';
export type { Commit, CommitResult, LeaseResource, RecordEvent, Records, SqlValue, Statement } from './records.ts';
