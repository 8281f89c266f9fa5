/** Transfer as our own client drives it: ends in Anys, archives through streams. */
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { TransferDefinition } from '../../proto/gen/containerd/services/transfer/v1/transfer.ts';
import { StreamInit, StreamingDefinition } from '../../proto/gen/containerd/services/streaming/v1/streaming.ts';
import { ImageExportStream, ImageImportStream } from '../../proto/gen/containerd/types/transfer/archive.ts';
import { ImageStore } from '../../proto/gen/containerd/types/transfer/image_store.ts';
import { OCIRegistry } from '../../proto/gen/containerd/types/transfer/registry.ts';
import { Data, WindowUpdate } from '../../proto/gen/containerd/types/transfer/stream.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { DeepPartial, MessageFns } from '../../proto/message.ts';
import { release } from '../../proto/owned.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { namespace } from '../unpack/work.ts';

const platform = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
const unpacks = [{ platform, snapshotter: 'overlayfs' }];
/** Bytes of a piece of an archive. */
const piece = 1 << 20;

function pack<T>(codec: MessageFns<T, string>, message: DeepPartial<T>): Any {
  return { typeUrl: codec.$type, value: codec.encode(codec.fromPartial(message)).finish() };
}

export async function pullByTransfer(address: string, reference: string): Promise<void> {
  const client = new GrpcClient(address, { namespace });
  try {
    await typedClient(client, TransferDefinition).transfer({
      source: pack(OCIRegistry, { reference, resolver: { defaultScheme: 'http' } }),
      destination: pack(ImageStore, { name: reference, platforms: [platform], unpacks }),
      options: undefined,
    });
  } finally {
    client.close();
  }
}

export async function importByTransfer(address: string, archive: string): Promise<void> {
  const client = new GrpcClient(address, { namespace });
  const done = new AbortController();
  try {
    const credit = new Credit();
    async function* messages(): AsyncGenerator<Any> {
      yield pack(StreamInit, { id: 'archive' });
      const file = await open(archive);
      // Encoding copies: one buffer is enough, and what is encoded is let go of when it has been sent on. The client is not what is measured.
      const buffer = Buffer.allocUnsafeSlow(piece);
      try {
        for (;;) {
          const { bytesRead } = await file.read(buffer, 0, piece, null);
          if (bytesRead === 0) return;
          await credit.take(bytesRead);
          const message = pack(Data, { data: buffer.subarray(0, bytesRead) });
          yield message;
          release(message.value);
        }
      } finally {
        await file.close();
      }
    }
    const replies = typedClient(client, StreamingDefinition)
      .stream(messages(), { signal: done.signal })
      [Symbol.asyncIterator]();
    await replies.next();
    void (async () => {
      for (let next = await replies.next(); next.done !== true; next = await replies.next())
        credit.give(WindowUpdate.decode(next.value.value).update);
    })().catch(() => {});
    await typedClient(client, TransferDefinition).transfer({
      source: pack(ImageImportStream, { stream: 'archive' }),
      destination: pack(ImageStore, {
        extraReferences: [{ name: 'bench', isPrefix: true, allowOverwrite: true }],
        unpacks,
      }),
      options: undefined,
    });
  } finally {
    done.abort();
    client.close();
  }
}

/** @returns bytes of the archive */
export async function exportByTransfer(address: string, name: string): Promise<number> {
  const client = new GrpcClient(address, { namespace });
  const done = new AbortController();
  let received = 0;
  try {
    const owed: Any[] = [pack(StreamInit, { id: 'archive' }), pack(WindowUpdate, { update: 16 << 20 })];
    let wake = (): void => {};
    async function* messages(): AsyncGenerator<Any> {
      for (;;) {
        const head = owed.shift();
        if (head !== undefined) yield head;
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    }
    const replies = typedClient(client, StreamingDefinition)
      .stream(messages(), { signal: done.signal })
      [Symbol.asyncIterator]();
    await replies.next();
    const reading = (async () => {
      for (let next = await replies.next(); next.done !== true; next = await replies.next()) {
        const { length } = Data.decode(next.value.value).data;
        received += length;
        owed.push(pack(WindowUpdate, { update: length }));
        wake();
      }
    })();
    await typedClient(client, TransferDefinition).transfer({
      source: pack(ImageStore, { name }),
      destination: pack(ImageExportStream, { stream: 'archive', platforms: [platform] }),
      options: undefined,
    });
    await Promise.race([reading, sleep(10_000, undefined, { ref: false })]);
    return received;
  } finally {
    done.abort();
    client.close();
  }
}

class Credit {
  #left = 0;
  #wake = (): void => {};

  give(bytes: number): void {
    this.#left += bytes;
    this.#wake();
  }

  async take(bytes: number): Promise<void> {
    while (this.#left < bytes) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#left -= bytes;
  }
}
