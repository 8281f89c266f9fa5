/**
 * Checkpoints: a directory of images that the runtime (CRIU) writes and reads, and its tar in the content store.
 * The tar goes through the diff service, which already makes and unpacks tars of directories; to it the directory is a bind mount.
 */

import { createHash, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Call, Failure, type PluginContext } from 'troupe/plugin';
import { CheckpointOptions } from 'troupe/proto/containerd/runc/v1/options.ts';

import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { ApplyRequest, DiffDefinition, DiffRequest } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { Descriptor } from 'troupe/proto/containerd/types/descriptor.ts';
import type { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import type { ContainerRecords } from './container-record.ts';
import type { ShimCallOptions } from './shim.ts';
import type { Task } from './task.ts';

const mediaTypes = {
  tar: 'application/vnd.oci.image.layer.v1.tar',
  checkpoint: 'application/vnd.containerd.container.criu.checkpoint.criu.tar',
  config: 'application/vnd.containerd.container.checkpoint.config.v1+proto',
} as const;

/** Directories of checkpoints under way, in the plugin's state directory; the dot keeps them from being taken for a namespace. */
const prefix = '.checkpoint-';

export interface CheckpointDirectory {
  readonly path: string;
  remove(): Promise<void>;
}

export class Checkpoints {
  readonly #state: string;
  readonly #call: PluginContext['call'];
  readonly #containers: ContainerRecords;

  constructor(state: string, call: PluginContext['call'], containers: ContainerRecords) {
    this.#state = state;
    this.#call = call;
    this.#containers = containers;
  }

  /** Unpacks the checkpoint that a task starts from; undefined when it starts afresh. @throws Failure InvalidArgument for a descriptor of another kind. */
  async restore(checkpoint: Descriptor | undefined, call: Call): Promise<CheckpointDirectory | undefined> {
    if (checkpoint === undefined) return undefined;
    if (checkpoint.mediaType !== mediaTypes.checkpoint) {
      throw new Failure('InvalidArgument', `unsupported checkpoint type "${checkpoint.mediaType}": invalid argument`);
    }
    const directory = await this.#directory();
    try {
      const diff = { ...checkpoint, mediaType: mediaTypes.tar };
      await this.#call(DiffDefinition).apply(
        ApplyRequest.fromPartial({ diff, mounts: [bindOf(directory.path)] }),
        call,
      );
      return directory;
    } catch (error) {
      await directory.remove();
      throw error;
    }
  }

  /** Has the shim write a checkpoint. Where the options name a directory of the caller's it stays there and nothing is returned; else it becomes content. */
  async save(task: Task, options: Any | undefined, call: Call, limit: ShimCallOptions): Promise<Descriptor[]> {
    const named = imagePathOf(options);
    if (named !== '') {
      await task.connection.call('checkpoint', { id: task.id, path: named, options }, limit);
      return [];
    }
    const { spec } = await this.#containers.get(task.id, call);
    const directory = await this.#directory();
    try {
      await task.connection.call('checkpoint', { id: task.id, path: directory.path, options }, limit);
      const request = DiffRequest.fromPartial({
        right: [bindOf(directory.path)],
        mediaType: mediaTypes.tar,
        ref: `checkpoint-${task.id}-${randomUUID()}`,
      });
      const { diff } = await this.#call(DiffDefinition).diff(request, call);
      const image = Descriptor.fromPartial({ ...diff, mediaType: mediaTypes.checkpoint });
      const config = await this.#write(mediaTypes.config, Any.encode(spec ?? Any.fromPartial({})).finish(), call);
      return [image, config];
    } finally {
      await directory.remove();
    }
  }

  async #write(mediaType: string, data: Uint8Array, call: Call): Promise<Descriptor> {
    const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    const size = BigInt(data.length);
    const ref = `checkpoint-config-${randomUUID()}`;
    const commit = WriteContentRequest.fromPartial({
      action: WriteAction.COMMIT,
      ref,
      total: size,
      expected: digest,
      data,
    });
    async function* requests(): AsyncGenerator<WriteContentRequest> {
      yield commit;
    }
    try {
      for await (const _ of this.#call(ContentDefinition).write(requests(), call));
    } catch (error) {
      if (!Failure.is(error, 'AlreadyExists')) throw error;
    }
    return Descriptor.fromPartial({ mediaType, digest, size });
  }

  async #directory(): Promise<CheckpointDirectory> {
    await mkdir(this.#state, { recursive: true, mode: 0o711 });
    const path = await mkdtemp(join(this.#state, prefix));
    return { path, remove: () => rm(path, { recursive: true, force: true }) };
  }
}

function bindOf(source: string): Mount {
  return { type: 'bind', source, target: '', options: ['rbind', 'rw'] };
}

function imagePathOf(options: Any | undefined): string {
  if (options?.typeUrl !== CheckpointOptions.$type) return '';
  try {
    return CheckpointOptions.decode(options.value).imagePath;
  } catch (cause) {
    throw new Failure('InvalidArgument', 'checkpoint options do not decode: invalid argument', { cause });
  }
}
