/** What is checked: a daemon that serves, its directories, what its clients were told. */
import type { Rows } from './database.ts';
import type { Fixtures } from './fixtures.ts';
import type { Listing } from './listing.ts';
import type { Oracle } from './oracle.ts';

export interface Subject {
  readonly root: string;
  readonly state: string;
  readonly address: string;
  readonly pid: number;
  /** Namespaces that nobody but this run's clients uses. */
  readonly namespaces: readonly string[];
  readonly oracle: Oracle;
  readonly fixtures: Fixtures;
  /** Clients have removed everything: whatever is still there has leaked. */
  readonly empty: boolean;
  /** Descriptors and threads of the daemon when it had nothing to do. */
  readonly baseline: Resources | undefined;
}

export interface Resources {
  readonly descriptors: number;
  readonly threads: number;
}

/** A subject with what was read of it at one moment. */
export interface Picture extends Subject {
  readonly listing: Listing;
  readonly rows: Rows;
}
