/**
 * What kind of place an address is. A registry decides where its redirects and its token server are; it must not be able to decide that they are inside
 * the network of whoever asks it (a cloud's metadata service at 169.254.169.254, an admin page on loopback).
 */
import { BlockList, isIP } from 'node:net';
import { Failure } from 'troupe/plugin';

export type Reach = 'public' | 'inside' | 'link-local';

/** Where requests on somebody else's word may go: `public` for a registry out there, `inside` for one in here, `any` for what the operator has named. */
export type Allowed = 'public' | 'inside' | 'any';

const inside = new BlockList();
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 3],
] as const)
  inside.addSubnet(net, bits, 'ipv4');
for (const [net, bits] of [
  ['::', 127],
  ['fc00::', 7],
  ['ff00::', 8],
  ['64:ff9b:1::', 48],
] as const)
  inside.addSubnet(net, bits, 'ipv6');

const linkLocal = new BlockList();
linkLocal.addSubnet('169.254.0.0', 16, 'ipv4');
linkLocal.addSubnet('fe80::', 10, 'ipv6');
linkLocal.addAddress('fd00:ec2::254', 'ipv6');

/** @param address an IP address, an IPv4 one in IPv6's clothes too */
export function reachOf(address: string): Reach {
  const plain = address.replace(/%.*$/, '');
  const family = isIP(plain) === 6 ? 'ipv6' : 'ipv4';
  if (linkLocal.check(plain, family)) return 'link-local';
  return inside.check(plain, family) ? 'inside' : 'public';
}

/** @throws Failure PermissionDenied */
export function requireAllowed(address: string, allowed: Allowed, host: string): void {
  if (allowed === 'any') return;
  const reach = reachOf(address);
  if (reach === 'public' || (allowed === 'inside' && reach === 'inside')) return;
  throw new Failure(
    'PermissionDenied',
    `${host} is ${address}, a ${reach === 'inside' ? 'private' : reach} address, to which a registry ${
      allowed === 'public' ? 'outside ' : ''
    }may not send anybody: permission denied`,
  );
}

/** Whose word leads there: what a registry at this address may name. Without an address (a proxy connects) nothing is known. */
export function allowedBy(address: string | undefined): Allowed {
  if (address === undefined) return 'inside';
  return reachOf(address) === 'public' ? 'public' : 'inside';
}
