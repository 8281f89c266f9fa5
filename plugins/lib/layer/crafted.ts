/** Entries that most layers of these tests are made of, and the value of an extended attribute. For tests. */

import type { Crafted } from '../tar/craft.ts';

export const dir = (name: string, more: Crafted = {}): Crafted => ({ name, type: '5', mode: 0o755, ...more });
export const file = (name: string, body = '', more: Crafted = {}): Crafted => ({ name, body, ...more });

/** What security.capability holds for CAP_NET_RAW, permitted and effective. */
export const cap20 = Buffer.from('0100000200200000000000000000000000000000', 'hex');
