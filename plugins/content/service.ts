/** containerd.services.content.v1.Content */
import { setImmediate as turn } from 'node:timers/promises';
import { Failure, failpoint, release, type Service } from 'troupe/plugin';
import {
  type ContentDefinition,
  type ListContentResponse,
  WriteAction,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { type Digest, digestProblem } from '../lib/digest/digest.ts';
import { parseFieldMask } from '../lib/fieldmask/fieldmask.ts';
import { parseFilters } from '../lib/filter/filter.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, mergeLabels, validateLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { infoAdaptor, statusAdaptor, toInfo, toStatus } from './convert.ts';
import type { Disk } from './disk.ts';
import { readBlob } from './reader.ts';
import type { Store } from './store.ts';
import { WriteSession } from './write-session.ts';
import type { Writers } from './writers.ts';

/** Infos per message of List. */
const listSize = 100;

export function contentService(store: Store, disk: Disk, writers: Writers): Service<typeof ContentDefinition> {
  return {
    info({ digest }, call) {
      return { info: toInfo(store.get(requireNamespace(call), parse(digest))) };
    },

    async update({ info, updateMask }, call) {
      const namespace = requireNamespace(call);
      const digest = parse(info?.digest ?? '');
      const labels = info?.labels ?? {};
      const mask = parseFieldMask(updateMask, {
        fields: ['labels'],
        maps: ['labels'],
        what: `content info ${quote(digest)}`,
      });
      // An entry that the mask names and the message lacks is one to delete.
      const changes = Object.fromEntries(
        mask.flatMap(({ key }) => (key === undefined ? [] : [[key, Object.hasOwn(labels, key) ? labels[key]! : '']])),
      );
      const all = mask.length === 0 || mask.some(({ key }) => key === undefined);
      validateLabels(all ? labels : changes, 'info.Labels');
      failpoint('content.update.before-record');
      const blob = await store.updateLabels(namespace, digest, (current) =>
        all ? copyLabels(labels) : mergeLabels(current, changes),
      );
      failpoint('content.update.before-reply');
      return { info: toInfo(blob) };
    },

    async *list({ filters }, call) {
      const namespace = requireNamespace(call);
      const matches = parseFilters(filters);
      let message: ListContentResponse = { info: [] };
      for (let after = ''; ; ) {
        const page = store.page(namespace, after, listSize);
        for (const blob of page) {
          if (!matches(infoAdaptor(blob))) continue;
          message.info.push(toInfo(blob));
          if (message.info.length < listSize) continue;
          yield message;
          message = { info: [] };
        }
        if (page.length < listSize) break;
        after = page.at(-1)!.digest;
        await turn();
        call.signal.throwIfAborted();
      }
      if (message.info.length > 0) yield message;
    },

    async delete({ digest }, call) {
      const namespace = requireNamespace(call);
      const parsed = parse(digest);
      failpoint('content.delete.before-record');
      await store.delete(namespace, parsed, call.lease);
      failpoint('content.delete.after-record');
      return {};
    },

    async *read({ digest, offset, size }, call) {
      yield* readBlob(disk, store.get(requireNamespace(call), parse(digest)), offset, size, () => call.signal);
    },

    status({ ref }, call) {
      return { status: toStatus(writers.status(requireNamespace(call), ref)) };
    },

    listStatuses({ filters }, call) {
      const namespace = requireNamespace(call);
      const matches = parseFilters(filters);
      return {
        statuses: writers
          .statuses(namespace)
          .filter((status) => matches(statusAdaptor(status)))
          .map(toStatus),
      };
    },

    async *write(requests, call) {
      let session: WriteSession | undefined;
      // Of a write that was answered before. It is told in the place of the next answer: a client that writes on to a stream which has ended
      // learns only that (Go's Send gives io.EOF), not why.
      let failed: { readonly cause: unknown } | undefined;
      try {
        for await (const request of requests) {
          if (failed !== undefined) break;
          session ??= await WriteSession.open(writers, request, call);
          if (WriteSession.isBulk(request)) {
            failpoint('content.write.before-reply');
            yield await session.accept(request);
            failpoint('content.write.after-reply');
            // The answer leaves with this turn's end, and the client makes its next message while this one is hashed and written.
            await turn();
            try {
              await session.append(request);
              release(request.data);
            } catch (cause) {
              failed = { cause };
            }
            continue;
          }
          const response = await session.step(request);
          // Who has the answer to a commit may use the ref again, and may never ask for the end of the stream.
          const last = request.action === WriteAction.COMMIT;
          if (last) await session.close();
          failpoint('content.write.before-reply');
          yield response;
          failpoint('content.write.after-reply');
          if (last) return;
        }
        if (failed !== undefined) throw failed.cause;
      } finally {
        await session?.close();
      }
    },

    async abort({ ref }, call) {
      await writers.abort({ namespace: requireNamespace(call), ref, lease: call.lease, signal: call.signal });
      return {};
    },
  };
}

function parse(text: string): Digest {
  const problem = digestProblem(text);
  if (problem === undefined) return text as Digest;
  throw new Failure('InvalidArgument', `${quote(text.slice(0, 300))}: ${problem}: invalid argument`);
}
