/** containerd.services.leases.v1.Leases: parse → store → convert. */
import { randomBytes } from 'node:crypto';
import type { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { type Call, Failure, type Service } from 'troupe/plugin';
import { absent, field, labelField, parseFilters } from '../lib/filter/filter.ts';
import { copyLabels, validateLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';
import { toMessage, toResource } from './convert.ts';
import type { Lease, LeaseStore } from './store.ts';

/** Bytes; containerd's own bound for keys of its database. */
const maxIdLength = 32_768;

/** @param collect removes now what nothing keeps any more, and resolves when it is gone. */
export function leasesService(
  store: LeaseStore,
  collect: (call: Call) => Promise<void>,
): Service<typeof LeasesDefinition> {
  return {
    async create({ id: asked, labels }, call) {
      const ns = requireNamespace(call);
      const createdAt = nowNanoseconds();
      const id = asked === '' ? randomId(createdAt) : asked;
      if (Buffer.byteLength(id) > maxIdLength)
        throw new Failure('InvalidArgument', `lease id is longer than ${maxIdLength} bytes: invalid argument`);
      if (id.includes('\0')) throw new Failure('InvalidArgument', 'lease id contains a NUL: invalid argument');
      validateLabels(labels, 'lease.Labels');
      const lease = { id, createdAt, labels: copyLabels(labels) };
      await store.create(ns, lease);
      return { lease: toMessage(lease) };
    },

    async delete({ id, sync }, call) {
      await store.delete(requireNamespace(call), id);
      if (sync) await collect(call);
      return {};
    },

    list({ filters }, call) {
      const ns = requireNamespace(call);
      const matches = parseFilters(filters);
      return {
        leases: store
          .list(ns)
          .filter((lease) => matches((path) => look(lease, path)))
          .map(toMessage),
      };
    },

    async addResource({ id, resource }, call) {
      await store.add(requireNamespace(call), id, toResource(resource));
      return {};
    },

    async deleteResource({ id, resource }, call) {
      await store.remove(requireNamespace(call), id, toResource(resource));
      return {};
    },

    listResources: ({ id }, call) => ({
      resources: store.resources(requireNamespace(call), id).map(({ type, id }) => ({ type, id })),
    }),
  };
}

/** In containerd's form, `394797616-LnMa`: nanoseconds of the second, and three random bytes. */
function randomId(createdAt: bigint): string {
  return `${createdAt % 1_000_000_000n}-${randomBytes(3).toString('base64url')}`;
}

function look({ id, labels }: Lease, fieldpath: readonly string[]) {
  if (fieldpath[0] === 'id') return field(id);
  return fieldpath[0] === 'labels' ? labelField(labels, fieldpath) : absent;
}
